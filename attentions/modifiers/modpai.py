"""Amplified scores of the keys that matter and of outliers (modified Pay Attention to Image).

Arif et al. 2025 (Fixing Imbalanced Attention, arXiv 2501.12206, and their published code, which
differs from the abstract: there is no modulation by head in it). Before softmax a score becomes
s_j + alpha |s_j| for top keys and s_j + beta |s_j| for bottom keys. Top keys are the quarter that a
vision encoder's class token attends to most, without the bottom ones; bottom keys are outliers of
that attention, above the third quartile plus 1.5 times the distance between the quartiles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.exact import exact_softmax
from attentions.shared.modified_softmax import ModifiedSoftmax, softmax_over, wide_scores
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionSpec,
    Family,
    Grade,
    Kind,
    Option,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="softmax+modpai",
        family=Family.MODIFIER,
        title="Softmax, top keys amplified (modPAI)",
        formula="A'_i = softmax_j(s_ij + (alpha or beta) |s_ij|) at top and outlying keys j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L^2 D",
        memory="L^2",
        paper="Arif et al., Fixing Imbalanced Attention to Mitigate In-Context Hallucination",
        year=2025,
        url="https://arxiv.org/abs/2501.12206",
        kind=Kind.MODIFIER,
        options=(
            Option("alpha", 0.7, "added share of a top key's score; 0 changes nothing", least=0.0),
            Option("beta", 0.3, "added share of an outlying key's score", least=0.0),
            Option("share", 0.25, "of the visible keys that are top keys", least=0.0),
        ),
    )
)
class ModifiedPai(ModifiedSoftmax):
    """Amplified scores.

    Adapted: there is no vision encoder whose attention could rank the keys, so each row ranks its
    own visible keys by its attention averaged over heads; and every row is changed, not that of
    the last query alone, which in decoding is the only one there is.
    """

    def __init__(
        self, spec: AttentionSpec, alpha: float = 0.7, beta: float = 0.3, share: float = 0.25
    ) -> None:
        super().__init__(spec)
        if share > 1:
            raise ValueError(f"share must be at most 1, not {share}")
        self.alpha, self.beta, self.share = alpha, beta, share

    def modified_map(
        self, q: Tensor, k: Tensor, seen: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """See `ModifiedSoftmax.modified_map`."""
        scores = wide_scores(q, k)
        # In double precision, where the smallest weights still have an order.
        ranking = softmax_over(scores.double(), seen).mean(1, keepdim=True)
        # Keys that a row does not see have no part in its quantiles.
        known = ranking.masked_fill(~seen, torch.nan)
        points = torch.tensor([0.25, 0.75, 1 - self.share], dtype=ranking.dtype, device=q.device)
        low, high, bar = torch.nanquantile(known, points, dim=-1, keepdim=True)
        bottom = ranking > high + 1.5 * (high - low)
        top = (ranking > bar) & ~bottom
        scores = scores + (self.alpha * top + self.beta * bottom) * scores.abs()
        return softmax_over(scores, seen)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One row at a time, as the module's docstring says."""
        seen = self._seen(q, k, context).expand(q.shape[0], 1, q.shape[-2], k.shape[-2])
        weights = exact_softmax(q, k, seen)
        out = weights @ v
        for b, i in torch.cartesian_prod(*map(torch.arange, (len(q), q.shape[-2]))).tolist():
            keys = seen[b, 0, i].nonzero().flatten()
            if not len(keys):
                continue
            ranking = weights[b, :, i, keys].mean(0)
            low, high = ranking.quantile(0.25), ranking.quantile(0.75)
            bottom = ranking > high + 1.5 * (high - low)
            top = (ranking > ranking.quantile(1 - self.share)) & ~bottom
            for h in range(q.shape[1]):
                if self.switched[h]:
                    scores = k[b, h, keys] @ q[b, h, i] / q.shape[-1] ** 0.5
                    scores = scores + self.alpha * top * scores.abs()
                    scores = scores + self.beta * bottom * scores.abs()
                    out[b, h, i] = scores.softmax(0) @ v[b, h, keys]
        return out
