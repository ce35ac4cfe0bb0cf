"""Vector attention of the Point Transformer: a weight for each group of channels of each of the
nearest neighbours (Zhao et al. 2021, arXiv 2012.09164; as in Liu et al. 2024, SymPoint, arXiv
2401.10556).

    p_ij = MLP_p(t_j - t_i)
    w_ij = softmax_j(MLP_w(k_j - q_i + p_ij))  in R^m,   m = Dv / s
    o_i  = sum_j (v_j + p_ij) ∘ repeat(w_ij)

over the n keys j whose places t are nearest to the query's, its own among them. The softmax is
over the neighbours, one for each of the m groups; channel c of the values has the weight c mod m.
MLP_p is Linear, GELU, Linear with as many hidden numbers as a place has coordinates in the paper,
three; MLP_w is GELU, Linear, GELU, Linear.

Adapted in these ways. Places are on one axis: the context's time stamps, or else positions, or else
places in the sequence, in units of ``unit`` times n. The MLPs are those of a head, on its D
channels, with GELU in the place of ReLU, which has a derivative everywhere: so many kinks lie
within any step of a difference that gradients cannot be checked against it. The authors normalise
over the batch inside the MLPs, which would mix rows and, in training, past and future; there is no
normalisation here. Causally the neighbours are the last n tokens. SymPoint also lets connected
primitives see each other; its public code does not, and neither does this.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.gathered import gathered
from attentions.shared.masks import visible
from attentions.shared.nearest import Neighbours, latest, nearest, nearest_mask
from attentions.shared.places import token_times
from attentions.shared.recompute import recomputed
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_HIDDEN = 3
"""Hidden numbers of MLP_p"""
_BLOCK = 128
"""Queries whose neighbours are in memory at a time."""


@register_attention(
    AttentionInfo(
        id="pt-vector",
        family=Family.WINDOWED,
        title="Point Transformer vector attention",
        formula="o_i = sum_j (v_j + p_ij) ∘ softmax_j(MLP(k_j - q_i + p_ij)), "
        "p_ij = MLP(t_j - t_i), n nearest j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L n D m",
        memory="L (D + n)",
        paper="Zhao et al., Point Transformer",
        year=2021,
        url="https://arxiv.org/abs/2012.09164",
        options=(
            Option("neighbours", 16, "n: keys that a query sees", positive=True),
            Option("share", 8, "s: channels of the values for each weight", positive=True),
            Option("unit", 1.0, "distance of neighbouring tokens in time", positive=True),
        ),
        presets={"sympoint": {"neighbours": 16, "share": 8}},
    )
)
class PointVectorAttention(Attention):
    """Weights by channel, of the differences of keys and queries, for the nearest keys."""

    def __init__(
        self, spec: AttentionSpec, neighbours: int = 16, share: int = 8, unit: float = 1.0
    ) -> None:
        super().__init__(spec)
        heads, dim, value_dim = spec.heads, spec.head_dim, spec.value_dim
        self.neighbours, self.reach = neighbours, unit * neighbours
        groups = -(-value_dim // share)
        self.place = nn.Linear(1, _HIDDEN)
        self.code = _HeadsLinear(heads, _HIDDEN, dim)
        self.value_code = self.code if value_dim == dim else _HeadsLinear(heads, _HIDDEN, value_dim)
        self.mix = _HeadsLinear(heads, dim, groups)
        self.weigh = _HeadsLinear(heads, groups, groups)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        query, key = self._times(q.shape[-2], k.shape[-2], context, q)
        mask = None if context is None else context.key_mask
        near = self._near(query, key, mask, q.shape[-2])
        return self._attend(q, k, v, near)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Weights of all pairs (B, H, Lq, Lk, m), of which the neighbours' are kept."""
        query, key = self._times(q.shape[-2], k.shape[-2], context, q)
        mask = None if context is None else context.key_mask
        if self.pattern is Pattern.CAUSAL_SELF:
            sees = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
            assert sees is not None
            later = sees.flip(-1).cumsum(-1).flip(-1) - sees.long()
            sees = sees & (later < self.neighbours)
        else:
            sees = nearest_mask(query, key, mask, self.neighbours)[:, None]
        offset = (key[:, None] - query[..., None])[:, None]
        code, value_code = self._codes(offset, q.dtype)
        logits = self._logits(k[:, :, None] - q[..., None, :] + code)
        weights = logits.masked_fill(~sees[..., None], -math.inf).softmax(-2)
        weights = weights.masked_fill(~sees[..., None], 0.0)
        return (self._repeated(weights) * (v[:, :, None] + value_code)).sum(-2)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The source, or the last n - 1 valid tokens of the prompt, with their times."""
        length = k.shape[-2]
        _, key = self._times(0, length, context, k)
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        key = key.expand(len(mask), -1)
        place = key.new_zeros(1, 1)
        if not self.pattern.cross:
            if length:
                place = key[:, -1:] + 1
            # A token that is not there, so that there is one to point at.
            k, v = (F.pad(x, (0, 0, 1, 0)) for x in (k, v))
            key, mask = F.pad(key, (1, 0)), F.pad(mask, (1, 0), value=False)
            near = latest(1, key, mask, self.neighbours - 1)
            kept = near.keys[:, 0]
            k, v = (gathered(x, near.keys)[:, :, 0] for x in (k, v))
            key, mask = key.gather(1, kept), near.present[:, 0]
        tensors = {"k": k, "v": v, "times": key, "mask": mask, "place": place}
        return DecodeState(length, tensors)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Attend to the nearest of the source, or to the kept tokens and the token's own.

        Without a time or position in the context it stands one behind the token before.
        """
        tensors, given = state.tensors, context or AttentionContext()
        time = tensors["place"]
        for own in (given.query_times, given.query_positions):
            if own is not None:
                time = torch.atleast_2d(own).to(time)
                break
        tensors["place"] = time + 1
        k, v, key, mask = (tensors[name] for name in ("k", "v", "times", "mask"))
        if k_t is None or v_t is None:
            return self._attend(q_t, k, v, nearest(time, key, mask, self.neighbours)), state
        k, v = torch.cat([k_t, k], dim=-2), torch.cat([v_t, v], dim=-2)
        key = torch.cat([time.expand(len(key), -1), key], dim=-1)
        mask = F.pad(mask, (1, 0), value=True)
        every = torch.arange(key.shape[-1], device=key.device).expand(len(key), 1, -1)
        offset = (key - time)[:, None].masked_fill(~mask[:, None], 0.0)
        out = self._attend(q_t, k, v, Neighbours(every, offset, mask[:, None]))
        keep = self.neighbours - 1
        state.tensors |= {
            "k": k[..., :keep, :],
            "v": v[..., :keep, :],
            "times": key[:, :keep],
            "mask": mask[:, :keep],
        }
        state.length += 1
        return out, state

    def state_size(self, length: int) -> int:
        """H (D + Dv) numbers and a time for each kept token: all, or at most n - 1."""
        count = length if self.pattern.cross else min(length, self.neighbours - 1)
        return count * (self.spec.heads * (self.spec.head_dim + self.spec.value_dim) + 1)

    def flops(self, shape: AttentionShape) -> float:
        """Codes, both layers of MLP_w and the weighted sum, for each neighbour of each query."""
        rows = shape.batch * shape.heads * shape.length_q
        groups = self.weigh.weight.shape[-1]
        each = _HIDDEN * (shape.head_dim + shape.value_dim) + shape.head_dim * groups
        each += groups**2 + shape.value_dim
        return 2 * rows * min(self.neighbours, shape.length_k) * each

    def _times(
        self, length_q: int, length_k: int, context: AttentionContext | None, x: Tensor
    ) -> tuple[Tensor, Tensor]:
        """In float64: they may be large beside their differences."""
        like = x.new_empty(0, dtype=torch.float64)
        return token_times(context, length_q, length_k, self.pattern.cross, like)

    def _near(self, query: Tensor, key: Tensor, mask: Tensor | None, length_q: int) -> Neighbours:
        if self.pattern is Pattern.CAUSAL_SELF:
            return latest(length_q, key, mask, self.neighbours)
        return nearest(query, key, mask, self.neighbours)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, near: Neighbours) -> Tensor:
        """Block by block of the queries, whose neighbours are gathered anew for the gradient."""
        dtype, work = v.dtype, torch.promote_types(v.dtype, torch.float32)
        q, k, v = q.to(work), k.to(work), v.to(work)
        outputs = []
        for first in range(0, q.shape[-2], _BLOCK):
            rows = slice(first, first + _BLOCK)
            own = (x[:, rows] for x in near)
            outputs.append(recomputed(self._block, q[..., rows, :], k, v, *own))
        return torch.cat(outputs, dim=-2).to(dtype)

    def _block(
        self, q: Tensor, k: Tensor, v: Tensor, index: Tensor, offset: Tensor, present: Tensor
    ) -> Tensor:
        code, value_code = self._codes(offset[:, None], q.dtype)
        logits = self._logits(gathered(k, index) - q[..., None, :] + code)
        hidden = ~present[:, None, ..., None]
        weights = logits.masked_fill(hidden, -math.inf).softmax(-2).masked_fill(hidden, 0.0)
        return (self._repeated(weights) * (gathered(v, index) + value_code)).sum(-2)

    def _codes(self, offset: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Codes p for keys and values, (B or 1, H, Lq, n, D) and (.., Dv), of offsets in time."""
        scaled = (offset / self.reach).to(dtype)[..., None]
        weight, bias = self.place.weight.to(dtype), self.place.bias.to(dtype)
        hidden = F.gelu(F.linear(scaled, weight, bias))
        code: Tensor = self.code(hidden)
        return code, code if self.value_code is self.code else self.value_code(hidden)

    def _logits(self, difference: Tensor) -> Tensor:
        """(B, H, Lq, n, m) = MLP_w."""
        logits: Tensor = self.weigh(F.gelu(self.mix(F.gelu(difference))))
        return logits

    def _repeated(self, weights: Tensor) -> Tensor:
        """(..., Dv) from (..., m): channel c has weight c mod m."""
        width, groups = self.spec.value_dim, weights.shape[-1]
        return weights.repeat(*(1,) * (weights.ndim - 1), -(-width // groups))[..., :width]


class _HeadsLinear(nn.Module):
    """A linear layer of each head, on (B, H or 1, Lq, n, D)."""

    def __init__(self, heads: int, width: int, out: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(heads, width, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(heads, out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, Lq, n, out)."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return x @ weight[:, None] + bias[:, None, None]
