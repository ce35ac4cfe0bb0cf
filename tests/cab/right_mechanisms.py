"""Right mechanisms of kinds that a strict check may take for wrong."""

import torch
from torch import nn
from torch.nn import functional as F

from cab import Attention
from cab.attention_contract import DecodeState
from tests.cab.wrong_mechanisms.base import CC, CS, INFO, NC, NS, Softmax, attend, visible


class Plain(Softmax):
    PATTERNS = (NS, CS, NC, CC)


class WithDropout(Softmax):
    """Weights are dropped in training."""

    PATTERNS = (NS, CS, NC, CC)

    def forward(self, q, k, v, context=None):
        mask = visible(self.pattern, q, k, context)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1).masked_fill(~mask, 0.0)
        return F.dropout(weights, 0.1, self.training).to(v.dtype) @ v


class RedrawnFeatures(Softmax):
    """Keys and queries are projected at random, anew for each training call."""

    PATTERNS = (NS, CS, CC)

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("directions", torch.randn(spec.head_dim, 16) / 4)

    def forward(self, q, k, v, context=None):
        if self.training:
            self.directions = torch.randn_like(self.directions) / 4
        directions = self.directions.to(q.dtype)
        return super().forward(q @ directions, k @ directions, v, context)

    @classmethod
    def decodes(cls):
        return False


class DistanceBias(Softmax):
    """A bias by distance; it counts tokens itself, and has no reference."""

    PATTERNS = (NS, CS)

    def forward(self, q, k, v, context=None):
        i = torch.arange(q.shape[-2])[:, None] + k.shape[-2] - q.shape[-2]
        distance = (i - torch.arange(k.shape[-2])).abs().to(q.dtype)
        mask = visible(self.pattern, q, k, context)
        scores = q @ k.mT * q.shape[-1] ** -0.5 - 0.1 * distance
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).masked_fill(~mask, 0.0)
        return weights.to(v.dtype) @ v

    @classmethod
    def decodes(cls):
        return False


class PositionTable(Softmax):
    """Learned key positions, as many as the model may feed; reads those of the context."""

    PATTERNS = (NS, CS, NC, CC)

    def __init__(self, spec):
        super().__init__(spec)
        self.table = nn.Parameter(torch.randn(spec.max_length + 1, spec.head_dim))

    def forward(self, q, k, v, context=None):
        places = torch.arange(k.shape[-2])
        if context is not None and context.key_positions is not None:
            places = context.key_positions
        own = self.table[places.clamp(max=len(self.table) - 1)]
        own = own[None, None] if own.ndim == 2 else own[:, None]
        return super().forward(q, k + own.to(k.dtype), v, context)

    @classmethod
    def decodes(cls):
        return False


class RunningMean(Softmax):
    """The mean of what has been seen, in chunks with a carried sum in float32."""

    PATTERNS = (CS,)

    def forward(self, q, k, v, context=None):
        wide = v.to(torch.promote_types(v.dtype, torch.float32))
        valid = torch.ones(len(v), v.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        weight = valid[:, None, :, None].to(wide.dtype)
        carry, count, outs = wide[..., :1, :] * 0, weight[..., :1, :] * 0, []
        for part, own in zip(wide.split(64, -2), weight.split(64, -2), strict=True):
            sums, counts = carry + (part * own).cumsum(-2), count + own.cumsum(-2)
            outs.append(sums / counts.clamp(min=1))
            carry, count = sums[..., -1:, :], counts[..., -1:, :]
        return torch.cat(outs, -2)[..., v.shape[-2] - q.shape[-2] :, :].to(v.dtype)

    @classmethod
    def decodes(cls):
        return False


class TopKeys(Softmax):
    """Each query sees its four largest scores."""

    PATTERNS = (NS, CS, NC)

    def forward(self, q, k, v, context=None):
        mask = visible(self.pattern, q, k, context)
        scores = q.float() @ k.float().mT if q.dtype.itemsize < 4 else q @ k.mT
        scores = scores.masked_fill(~mask, float("-inf"))
        bar = scores.topk(min(4, k.shape[-2]), -1).values[..., -1:]
        return attend(q, k, v, mask & (scores >= bar))

    @classmethod
    def decodes(cls):
        return False


class BatchStatistics(Softmax):
    """Values are centred by the mean of the batch in training, by a running one in evaluation."""

    PATTERNS = (NS,)

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("mean", torch.zeros(1, spec.heads, 1, spec.value_dim))

    def forward(self, q, k, v, context=None):
        mean = self.mean.to(v.dtype)
        if self.training:
            weight = v.new_ones(len(v), 1, v.shape[-2], 1)
            if context is not None and context.key_mask is not None:
                weight = context.key_mask[:, None, :, None].to(v.dtype)
            mean = (v * weight).sum((0, 2), keepdim=True) / weight.sum().clamp(min=1)
            self.mean = torch.lerp(self.mean, mean.detach().to(self.mean.dtype), 0.1)
        return super().forward(q, k, v - mean, context)


class Codebook(Softmax):
    """Keys are replaced by the nearest of a codebook that follows them, straight through."""

    PATTERNS = (NS, NC)
    surrogate_gradient = True

    def __init__(self, spec):
        super().__init__(spec)
        self.codes = nn.Parameter(torch.randn(spec.heads, 8, spec.head_dim))
        self.loss = None

    def quantised(self, k):
        codes = self.codes.to(k.dtype).expand(len(k), -1, -1, -1)
        index = torch.cdist(k.double(), codes.double()).argmin(-1)
        return codes.gather(2, index[..., None].expand(*index.shape, k.shape[-1]))

    def forward(self, q, k, v, context=None):
        near = self.quantised(k)
        self.loss = (near - k.detach()).float().square().mean()
        return super().forward(q, k + (near - k).detach(), v, context)

    def reference(self, q, k, v, context=None):
        straight = k + (self.quantised(k) - k).detach()
        return attend(q, straight, v, visible(self.pattern, q, k, context))

    def auxiliary_loss(self):
        return self.loss


class LayerInputGate(Softmax):
    """A gate from the layer's input, without which it refuses the call."""

    PATTERNS = (NS, CS, NC, CC)

    def __init__(self, spec):
        super().__init__(spec)
        self.gate = nn.Linear(spec.embed_dim, spec.heads)

    def gates(self, context):
        if context is None or context.query_input is None:
            raise ValueError("takes the layer's input")
        gate = self.gate(context.query_input.to(self.gate.weight.dtype)).sigmoid()
        return gate.mT[..., None]

    def forward(self, q, k, v, context=None):
        return super().forward(q, k, v, context) * self.gates(context).to(v.dtype)

    def step(self, q_t, k_t, v_t, state, context=None):
        out, state = super().step(q_t, k_t, v_t, state)
        return out * self.gates(context).to(out.dtype), state


class ShortConvolution(Softmax):
    """Keys are convolved with the two before them."""

    PATTERNS = (CS, NS)

    def __init__(self, spec):
        super().__init__(spec)
        self.taps = nn.Parameter(torch.tensor([0.3, 0.3, 0.4]))

    def forward(self, q, k, v, context=None):
        taps, length = self.taps.to(k.dtype), k.shape[-2]
        padded = F.pad(k, (0, 0, 2, 0))
        k = sum(taps[i] * padded[..., i : i + length, :] for i in range(3))
        return super().forward(q, k, v, context)

    @classmethod
    def decodes(cls):
        return False


class GatedByTheLayersInput(Attention):
    """Every token's gate is read off the layer's input, in the prompt too."""

    PATTERNS = (CS,)
    info = INFO

    def __init__(self, spec):
        super().__init__(spec)
        self.gate = nn.Linear(spec.embed_dim or spec.heads * spec.head_dim, spec.heads)

    def gated(self, v, context):
        if context is None or context.key_input is None:
            raise ValueError("gates are read off the layer's input: give context.key_input")
        gates = self.gate(context.key_input.to(self.gate.weight.dtype)).sigmoid()
        return v * gates.mT[..., None].to(v.dtype)

    def forward(self, q, k, v, context=None):
        return attend(q, k, self.gated(v, context), visible(CS, q, k, context))

    def prefill(self, k, v, context=None):
        mask = None if context is None else context.key_mask
        if mask is None:
            mask = torch.ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        gated = self.gated(v, context)
        return DecodeState(k.shape[-2], {"k": k, "v": gated, "mask": mask})

    def step(self, q_t, k_t, v_t, state, context=None):
        new = {"k": k_t, "v": self.gated(v_t, context)}
        for name, x in new.items():
            state.tensors[name] = torch.cat([state.tensors[name], x], -2)
        one = torch.ones(k_t.shape[0], 1, dtype=torch.bool)
        state.tensors["mask"] = torch.cat([state.tensors["mask"], one], -1)
        state.length += 1
        mask = state.tensors["mask"][:, None, None, :]
        return attend(q_t, state.tensors["k"], state.tensors["v"], mask), state

    def state_size(self, length):
        return self.spec.heads * length * (self.spec.head_dim + self.spec.value_dim) + length


class KinkOfEveryPair(Attention):
    """Scores are bent at zero: among as many as there are pairs, some lie within any step."""

    info = INFO
    PATTERNS = (NS, CS, NC, CC)

    def __init__(self, spec):
        super().__init__(spec)
        self.vectors = nn.Parameter(torch.randn(2, spec.heads, spec.head_dim, 1))

    def forward(self, q, k, v, context=None):
        mask = visible(self.pattern, q, k, context)
        vectors = self.vectors.to(torch.promote_types(q.dtype, torch.float32))
        of_query, of_key = (x.to(vectors.dtype) @ y for x, y in zip((q, k), vectors, strict=True))
        scores = F.leaky_relu(of_query + of_key.mT, 0.01)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).masked_fill(~mask, 0.0)
        return (weights @ v.to(weights.dtype)).to(v.dtype)
