"""Forgetting attention: softmax under a gate that forgets (Lin et al. 2025, arXiv 2503.02130).

    o_i = sum_j softmax_j(q_i·k_j / sqrt(D) + c_i - c_j) v_j,   c_t = sum_(s <= t) ln f_s
    f_t = sigmoid(w_h·x_t + b_h)

over the keys j that row i sees (equations 7 to 9): the weight of a key shrinks with every token
since, by a factor f of one number for each head and token, from the layer's input. Gates that are
all open give softmax attention. This is the authors' ``FoX`` without what its ``Pro`` form adds (a
gate and norms at the outputs, norms of queries and keys, a shift of keys), which is not forgetting.

As c_i is the same for a whole row it cancels, and -c_j is one number of a key: with one channel
more, queries [q, 1] and keys [k, -c_j sqrt(D)], fused softmax attention computes it. So that little
is rounded away, c is kept in float64, and blocks of queries count it from where they begin.

* Cross attention: a query stands behind the source, whose order then matters; an extension, as
  noncausal self attention is, where the gates between two tokens count whichever comes first:
  -|c_i - c_j|.
* A masked key is not there, and its gate counts as open. The bias b starts at zero, as the
  authors' does; w as linear layers do.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.layer_inputs import key_input
from attentions.shared.masks import visible
from attentions.shared.recompute import recomputed
from attentions.softmax import softmax_flops
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Pattern,
    register_attention,
)

_BLOCK = 128
"""Queries that count their gates from one place"""


@register_attention(
    AttentionInfo(
        id="fox",
        family=Family.SOFTMAX,
        title="Forgetting attention (FoX)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D) + sum_(j < s <= i) ln f_s) v_j, "
        "f_s = sigmoid(w·x_s + b)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L",
        paper="Lin et al., Forgetting Transformer: Softmax Attention with a Forget Gate",
        year=2025,
        url="https://arxiv.org/abs/2503.02130",
    )
)
class ForgettingAttention(KeyValueCache):
    """Softmax attention to keys that fade; needs the keys' layer input in its context."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        self.forget = nn.Linear(spec.embed_dim or spec.heads * spec.head_dim, spec.heads)
        nn.init.zeros_(self.forget.bias)

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            ValueError: the context has no ``key_input`` to take the gates from.
        """
        return self._attend(q, k, v, self._faded(k, context), context)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """All scores with what lies between query and key, written out."""
        faded = self._log_gates(k, context).cumsum(-1).to(q.dtype)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        here = faded[..., -1:]
        if not self.pattern.cross:
            here = faded[..., k.shape[-2] - q.shape[-2] :]
        between = here[..., :, None] - faded[..., None, :]
        if self.pattern is Pattern.NONCAUSAL_SELF:
            between = -between.abs()
        scores = q @ k.mT * q.shape[-1] ** -0.5 + between
        if mask is None:
            return scores.softmax(-1).to(v.dtype) @ v
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1).masked_fill(~mask, 0.0)
        return weights.to(v.dtype) @ v

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keys, values and ``faded`` (B, H, L), what each key has lost."""
        state = super().prefill(k, v, context)
        state.tensors["faded"] = self._faded(k, context)
        return state

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Let all keys fade by the token's gate, add its own, attend."""
        tensors = state.tensors
        if k_t is not None and v_t is not None:
            gate = self._log_gates(k_t, context)
            faded = tensors["faded"]
            tensors["faded"] = torch.cat([faded, gate + faded[..., -1:].sum(-1, True)], dim=-1)
            tensors["k"] = torch.cat([tensors["k"], k_t], dim=-2)
            tensors["v"] = torch.cat([tensors["v"], v_t], dim=-2)
            if "key_mask" in tensors:
                tensors["key_mask"] = F.pad(tensors["key_mask"], (0, 1), value=True)
            state.length += 1
        cached = AttentionContext(key_mask=tensors.get("key_mask"))
        out = self._attend(q_t, tensors["k"], tensors["v"], tensors["faded"], cached)
        return out, state

    def state_size(self, length: int) -> int:
        """H L (2 D + 1) numbers."""
        return super().state_size(length) + self.spec.heads * length

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention with one channel more, and of the gates."""
        pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
        causal = self.pattern is Pattern.CAUSAL_SELF
        gates = 2 * shape.batch * shape.length_k * self.forget.in_features * shape.heads
        return softmax_flops(shape, causal) + 2 * pairs * (0.5 if causal else 1.0) + gates

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, faded: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """Block by block of queries, each counting from its first one."""
        dtype, length, lag = v.dtype, k.shape[-2], k.shape[-2] - q.shape[-2]
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = (x.to(wide) for x in (q, k, v))
        scale, mask = q.shape[-1] ** -0.5, None if context is None else context.key_mask
        causal = self.pattern is Pattern.CAUSAL_SELF
        outputs = []
        for first in range(0, q.shape[-2], _BLOCK):
            rows = q[..., first : first + _BLOCK, :]
            last = lag + first + rows.shape[-2] if causal else length
            start = last - 1 if self.pattern.cross else lag + first
            block = partial(self._block, scale=scale, start=start, mask=mask)
            past = (x[..., :last, :] for x in (k, v))
            outputs.append(recomputed(block, rows, *past, faded[..., :last]))
        return torch.cat(outputs, dim=-2).to(dtype)

    def _block(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        faded: Tensor,
        scale: float,
        start: int,
        mask: Tensor | None,
    ) -> Tensor:
        """Outputs of a block of queries, whose gates are counted from token ``start``."""
        from_start = (faded[..., start : start + 1] - faded).to(q.dtype)
        hidden = self._hidden(q.shape[-2], k.shape[-2], mask)
        if self.pattern is Pattern.NONCAUSAL_SELF:
            own = -from_start[..., start : start + q.shape[-2]]
            bias = -(own[..., :, None] + from_start[..., None, :]).abs()
            return _softmax(q, k, v, scale, hidden, bias)
        q = torch.cat([q, torch.full_like(q[..., :1], 1 / scale)], dim=-1)
        return _softmax(q, torch.cat([k, from_start[..., None]], dim=-1), v, scale, hidden)

    def _hidden(self, length_q: int, length_k: int, mask: Tensor | None) -> Tensor | None:
        """Which keys the last rows of a sequence do not see, broadcastable to (B, H, Lq, Lk)."""
        context = None if mask is None else AttentionContext(key_mask=mask[:, :length_k])
        seen = visible(self.pattern, length_q, length_k, context, self.forget.weight.device)
        return None if seen is None else ~seen

    def _faded(self, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B, H, Lk) c, in float64: over long sequences it is large, and differences count."""
        return self._log_gates(k, context).double().cumsum(-1)

    def _log_gates(self, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B, H, Lk) ln f in float32 at least; zero where masked."""
        y = key_input(context, "fox", "gates")
        gates = self.forget(y.to(self.forget.weight.dtype)).mT
        gates = F.logsigmoid(gates.to(torch.promote_types(k.dtype, torch.float32)))
        mask = None if context is None else context.key_mask
        if mask is not None and mask.shape[-1] == gates.shape[-1]:
            gates = gates.masked_fill(~mask[:, None, :], 0.0)
        return gates


def _softmax(
    q: Tensor, k: Tensor, v: Tensor, scale: float, hidden: Tensor | None, bias: Tensor | None = None
) -> Tensor:
    """Fused softmax attention; zero in a row that sees no key."""
    if hidden is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    blind = hidden.all(-1, keepdim=True)
    if bias is None:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden | blind, scale=scale)
    else:
        bias = bias.masked_fill(hidden & ~blind, -math.inf)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return out.masked_fill(blind, 0.0)
