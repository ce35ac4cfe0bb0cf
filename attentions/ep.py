"""Efficient probing: learned queries that pool raw tokens (Psomas et al. 2025, arXiv 2506.10178).

    a_h = softmax_j(u_h·x_j / sqrt(E)),   o_ih = sum_j a_hj v_hj

One learned query u_h of the layer's width E for each head pools its slice of the values. There is
no projection of queries and keys: the keys are the source's layer input x, the same for all heads.
**Neither q nor k is read**, and every row of the output is the same.

The paper's M queries are the heads, its slices of a projection of x the heads' values, and its
output has one row, which a classifier reads. Here as many rows are given as there are queries: the
formula in a slot that its authors did not have in mind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentions.shared.autocast import without_autocast
from attentions.shared.softmax_means import softmax_means
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Pattern,
    register_attention,
)

_QUERY_STD = 0.02
"""Of the learned queries at first, as published."""


@register_attention(
    AttentionInfo(
        id="ep",
        family=Family.LOW_RANK,
        title="Efficient probing",
        formula="o_ih = sum_j softmax_j(u_h·x_j / sqrt(E)) v_hj, u_h learned, x the layer's input",
        patterns={Pattern.NONCAUSAL_CROSS: Grade.EXTENSION},
        absent={
            Pattern.NONCAUSAL_SELF: "one output for the whole sequence, not one for each token",
            Pattern.CAUSAL_SELF: "one output for the whole sequence, not one for each token",
            Pattern.CAUSAL_CROSS: "one output for the whole source: what is generated has no part "
            "in what is read",
        },
        time="L D",
        memory="L",
        paper="Psomas et al., Attention, Please! Revisiting Attentive Probing Through the Lens of "
        "Efficiency",
        year=2025,
        url="https://arxiv.org/abs/2506.10178",
    )
)
class EfficientProbing(Attention):
    """A learned mean of the values for each head; needs the source's layer input."""

    def __init__(self, spec: AttentionSpec) -> None:
        super().__init__(spec)
        self.width = spec.embed_dim or spec.heads * spec.head_dim
        self.queries = nn.Parameter(_QUERY_STD * torch.randn(spec.heads, self.width))

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            ValueError: the context has no ``key_input`` to compare the learned queries with.
        """
        tokens = self._tokens(context)
        dtype = torch.promote_types(v.dtype, torch.float32)
        queries = self.queries.to(dtype) * self.width**-0.5
        logits = (tokens.to(dtype) @ queries.mT).mT[:, :, None]
        mask = None
        if context is not None and context.key_mask is not None:
            mask = context.key_mask[:, None, None]
        pooled, _ = softmax_means(logits, v.to(dtype), mask)
        return pooled.to(v.dtype).expand(*q.shape[:3], -1)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Head by head, over the tokens that are not masked."""
        tokens, rows = self._tokens(context).to(v.dtype), []
        for b in range(v.shape[0]):
            kept = torch.ones(v.shape[-2], dtype=torch.bool, device=v.device)
            if context is not None and context.key_mask is not None:
                kept = context.key_mask[b]
            scores = self.queries.to(v.dtype) @ tokens[b, kept].mT / self.width**0.5
            rows.append((scores.softmax(-1)[:, None] @ v[b][:, kept]).expand(*q.shape[1:3], -1))
        return torch.stack(rows)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lk (E + Dv)."""
        rows = shape.batch * shape.heads * shape.length_k
        return 2 * rows * (self.width + shape.value_dim)

    def _tokens(self, context: AttentionContext | None) -> Tensor:
        """(B, Lk, E)."""
        if context is None or context.key_input is None:
            raise ValueError(
                "ep compares its queries with the source's layer input: call it with "
                "context=AttentionContext(key_input=x), x of shape (B, Lk, E)"
            )
        return context.key_input
