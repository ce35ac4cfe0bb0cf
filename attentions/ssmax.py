"""Scalable-Softmax: a temperature that follows how many keys there are (Nakanishi 2025, arXiv
2501.19399, equations 2 and 3).

    o_i = sum_j p_ij v_j,   p_ij = n_i^(s q_i·k_j / sqrt(D)) / sum_l n_i^(s q_i·k_l / sqrt(D))

over the n_i keys that row i sees, which is softmax with scores times s ln(n_i). Under plain softmax
the largest weight of scores of a given spread falls as keys are added; under this it does not. The
scale s is learned, one for each head.

The paper's experiments do not say what s starts at; here it is 0.43 as in its figure 1, which makes
it softmax at ten keys. The variant with an added constant, (s ln(n) + b) q·k, is an option.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax
from attentions.shared.masks import visible
from attentions.shared.visible_means import visible_count
from attentions.softmax import SoftmaxAttention
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="ssmax",
        family=Family.SOFTMAX,
        title="Scalable-Softmax",
        formula="o_i = softmax_j(s ln(n_i) q_i·k_j / sqrt(D)) v_j, n_i keys seen",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L^2 D",
        memory="L",
        paper="Nakanishi, Scalable-Softmax Is Superior for Attention",
        year=2025,
        url="https://arxiv.org/abs/2501.19399",
        options=(
            Option("start", 0.43, "s before training"),
            Option("bias", False, "a learned constant beside s ln(n), zero at first"),
        ),
    )
)
class ScalableSoftmax(SoftmaxAttention):
    """Softmax attention with scores that grow with the logarithm of the number of keys."""

    def __init__(self, spec: AttentionSpec, start: float = 0.43, bias: bool = False) -> None:
        super().__init__(spec)
        self.scale = nn.Parameter(torch.full((spec.heads,), start))
        self.bias = nn.Parameter(torch.zeros(spec.heads)) if bias else None

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least, since what s learns from is a
        small difference of what queries hand back.
        """
        factors, dtype = self._factors(q, k, context), v.dtype
        q, k, v = (x.to(factors.dtype) for x in (q, k, v))
        return self.fused(q * factors, k, v, context, q.shape[-1] ** -0.5).to(dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Powers of the number of keys that the mask leaves, written out."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
        count = (seen if mask is None else seen & mask).sum(-1, keepdim=True).clamp(min=1)
        scale = self.scale.to(q.dtype)[:, None, None]
        factor = scale * count.to(q.dtype).log()
        if self.bias is not None:
            factor = factor + self.bias.to(q.dtype)[:, None, None]
        return exact_softmax(q * factor, k, mask).to(v.dtype) @ v

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention, and one for every number of the queries."""
        queries = shape.batch * shape.heads * shape.length_q * shape.head_dim
        return super().flops(shape) + queries

    def _factors(self, q: Tensor, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B or 1, H, Lq or 1, 1), in float32 at least."""
        count = visible_count(k, self.pattern, q.shape[-2], context).clamp(min=1)
        factors = self.scale.to(count.dtype)[:, None, None] * count.log()
        if self.bias is not None:
            factors = factors + self.bias.to(count.dtype)[:, None, None]
        return factors
