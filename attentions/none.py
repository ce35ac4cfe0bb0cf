"""No attention: what the rest of the backbone does alone.

    o_i = v_i in a self slot,   o_i = 0 in a cross slot

The gap between this control and ``softmax`` is the benefit of attention on a task (CAB, Zhang et
al. 2022, section 5); a task where there is none does not measure attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    DecodeState,
    Family,
    Grade,
    Kind,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="none",
        family=Family.CONTROL,
        title="No attention",
        formula="o_i = v_i (self), o_i = 0 (cross)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L D",
        memory="1",
        paper="Zhang et al., CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",
        year=2022,
        url="https://arxiv.org/abs/2210.07661",
        kind=Kind.CONTROL,
    )
)
class NoAttention(Attention):
    """A self slot passes the token's own value, a cross slot zeros."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        if self.pattern.cross:
            return torch.zeros_like(v[..., :1, :]).expand(*q.shape[:-1], v.shape[-1])
        own = v[..., v.shape[-2] - q.shape[-2] :, :]
        if context is None or context.key_mask is None:
            return own
        valid = context.key_mask[:, None, v.shape[-2] - q.shape[-2] :, None]
        return own.masked_fill(~valid, 0.0)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """An identity (self) or zero (cross) matrix of weights, applied to the values."""
        length_q, length_k = q.shape[-2], k.shape[-2]
        weights = v.new_zeros(length_q, length_k)
        if not self.pattern.cross:
            weights = torch.eye(length_k, dtype=v.dtype, device=v.device)[length_k - length_q :]
        if context is not None and context.key_mask is not None:
            weights = weights * context.key_mask[:, None, None, :].to(v.dtype)
        return weights.expand(*q.shape[:2], length_q, length_k) @ v

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Nothing is kept but the width of the values."""
        return DecodeState(k.shape[-2], {"value": v[..., :1, :]})

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """The token's own value, or zeros in cross attention."""
        if v_t is None:
            return torch.zeros_like(state.tensors["value"]), state
        state.length += v_t.shape[-2]
        return v_t, state

    def state_size(self, length: int) -> int:
        """0"""
        return 0

    def flops(self, shape: AttentionShape) -> float:
        """0"""
        return 0.0
