"""Differential attention: one softmax map less another (Ye et al. 2024, arXiv 2410.05258).

    o_i = (1 - λ0) RMSNorm(sum_j (p1_ij - λ p2_ij) v_j)
    pm = softmax(qm_i·km_j / sqrt(D / 2)),   q = [q1, q2],   k = [k1, k2]
    λ = exp(λq1·λk1) - exp(λq2·λk2) + λ0,   λ0 = 0.8 - 0.6 exp(-0.3 layer)

over the keys j that row i sees (equations 1 to 3). What both maps have in common, mostly weight on
what does not matter, cancels. The halves of queries and keys are maps of their own, so that a head
costs what it does under softmax; the four vectors λ of D/2 numbers are the layer's, as is the
weight of the normalisation, which each head has by itself. Layers count from 0.

The authors halve the number of heads and double their width. Here heads are the backbone's: as many
as softmax has, each with maps half as wide. A head of odd width has a channel of zeros more.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.exact import exact_softmax
from attentions.shared.masks import visible
from attentions.softmax import SoftmaxAttention, softmax_flops
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

_EPS = 1e-5


@register_attention(
    AttentionInfo(
        id="diff-attn",
        family=Family.SOFTMAX,
        title="Differential attention",
        formula="o_i = (1 - λ0) RMSNorm((softmax(q1_i·k1 / sqrt(D/2)) - "
        "λ softmax(q2_i·k2 / sqrt(D/2))) v), q and k in halves",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L",
        paper="Ye et al., Differential Transformer",
        year=2024,
        url="https://arxiv.org/abs/2410.05258",
        options=(Option("norm", True, "normalise what each head gives"),),
    )
)
class DifferentialAttention(SoftmaxAttention):
    """The difference of two softmax maps, each of half of the channels."""

    def __init__(self, spec: AttentionSpec, norm: bool = True) -> None:
        super().__init__(spec)
        self.first_lambda = 0.8 - 0.6 * math.exp(-0.3 * spec.layer_index)
        self.lambdas = nn.Parameter(0.1 * torch.randn(4, (spec.head_dim + 1) // 2))
        self.weight = nn.Parameter(torch.ones(spec.value_dim)) if norm else None

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; the difference is taken in float32 at least."""
        half = (q.shape[-1] + 1) // 2
        scale, narrower = half**-0.5, max(0, v.shape[-1] - half)
        # Torch's kernels without a matrix in memory want queries as wide as values.
        halves = ((F.pad(x, (0, narrower)) for x in _halves(y)) for y in (q, k))
        first, second = (self.fused(a, b, v, context, scale) for a, b in zip(*halves, strict=True))
        wide = torch.promote_types(v.dtype, torch.float32)
        return self._normed(first.to(wide) - self._lambda(wide) * second.to(wide)).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Both maps written out."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        halves = zip(_halves(q), _halves(k), strict=True)
        first, second = (exact_softmax(a, b, mask) for a, b in halves)
        return self._normed((first - self._lambda(first.dtype) * second) @ v)

    def flops(self, shape: AttentionShape) -> float:
        """Two softmax attentions, of queries that are half as wide, or filled up to the values."""
        width = max((shape.head_dim + 1) // 2, shape.value_dim)
        causal = self.pattern is Pattern.CAUSAL_SELF
        return 2 * softmax_flops(replace(shape, head_dim=width), causal)

    def _lambda(self, dtype: torch.dtype) -> Tensor:
        """λ of the layer."""
        q1, k1, q2, k2 = self.lambdas.to(dtype)
        return (q1 @ k1).exp() - (q2 @ k2).exp() + self.first_lambda

    def _normed(self, out: Tensor) -> Tensor:
        if self.weight is not None:
            out = F.rms_norm(out, out.shape[-1:], self.weight.to(out.dtype), _EPS)
        return (1 - self.first_lambda) * out


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two of (B, H, L, ceil(D / 2))."""
    first, second = F.pad(x, (0, x.shape[-1] % 2)).chunk(2, -1)
    return first, second
