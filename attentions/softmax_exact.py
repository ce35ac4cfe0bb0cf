"""Softmax attention with the score matrix in memory: the exact-attention control.

It computes the same function as ``softmax`` by other floating-point operations, so the difference
between the two on a leaderboard shows the noise of the benchmark.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.cache import KeyValueCache
from attentions.exact import exact_softmax, exact_softmax_attention
from attentions.masks import visible
from attentions.softmax import softmax_flops
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    Grade,
    Kind,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="softmax-exact",
        title="Softmax attention (plain formula)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L^2 D",
        memory="L^2",
        paper="Vaswani et al., Attention Is All You Need",
        year=2017,
        url="https://arxiv.org/abs/1706.03762",
        kind=Kind.CONTROL,
    )
)
class ExactSoftmaxAttention(KeyValueCache):
    """Softmax attention by the plain formula, L^2 memory."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        return exact_softmax_attention(q, k, v, mask)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The sum over keys, one query row at a time."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        rows = []
        for i in range(q.shape[-2]):
            row_mask = mask
            if mask is not None and mask.shape[-2] > 1:
                row_mask = mask[..., i : i + 1, :]
            weights = exact_softmax(q[..., i : i + 1, :], k, row_mask)
            rows.append((weights.transpose(-1, -2) * v).sum(-2, keepdim=True))
        return torch.cat(rows, dim=-2)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq Lk (D + Dv): the whole matrix, masked or not."""
        return softmax_flops(shape, causal=False)
