"""Attention Calibration: weight is taken from attention sinks other than the first one.

Yu et al. 2024 (arXiv 2406.15765, Attention Calibration Technique, and their published code). The
mean weight that key j gets from the queries that see it is m_j. Sinks are the keys with m_j above a
threshold; the first of them is kept. In every row the weights of the others are scaled by beta, and
the freed mass goes to all other keys in proportion to their weights. It acts in heads that were
chosen on held-out data, one at a time.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attentions.exact import exact_softmax
from attentions.modifiers.modified_softmax import ModifiedSoftmax, moved, wide_softmax
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionSpec,
    Grade,
    Kind,
    Option,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="softmax+act-calib",
        title="Softmax, sinks calibrated (ACT)",
        formula="A'_ij = beta A_ij at sinks j but the first, their mass spread over the other keys",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L^2 D",
        memory="L^2",
        paper="Yu et al., Unveiling and Harnessing Hidden Attention Sinks",
        year=2024,
        url="https://arxiv.org/abs/2406.15765",
        kind=Kind.MODIFIER,
        options=(
            Option("threshold", 0.1, "mean weight above which a key is a sink", least=0.0),
            Option("beta", 0.4, "factor of a sink's weights; 1 changes nothing", least=0.0),
        ),
    )
)
class ActCalibration(ModifiedSoftmax):
    """Calibrated sinks.

    Adapted in causal patterns: the published column mean runs over all queries that see a key, the
    later ones included, so it would tell a row what follows it. Here the mean of row i runs over
    the queries up to i. All layers take part (published: all but the first two and the last).
    """

    calibrates: ClassVar[bool] = True

    def __init__(self, spec: AttentionSpec, threshold: float = 0.1, beta: float = 0.4) -> None:
        super().__init__(spec)
        if beta > 1:
            raise ValueError(f"beta must be at most 1, not {beta}")
        self.threshold, self.beta = threshold, beta

    def modified_map(
        self, q: Tensor, k: Tensor, seen: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """See `ModifiedSoftmax.modified_map`."""
        weights = wide_softmax(q, k, seen)
        counted = seen
        valid = _valid_queries(self.pattern, context)
        if valid is not None:
            counted = seen & valid[:, None, :, None]
        if self.pattern.causal:
            sums = (weights * counted).cumsum(-2)
            queries = counted.cumsum(-2)
        else:
            sums = (weights * counted).sum(-2, keepdim=True)
            queries = counted.sum(-2, keepdim=True)
        sinks = (sums > self.threshold * queries) & seen
        others = sinks & (sinks.cumsum(-1) > 1)
        return moved(weights, others, ~others, self.beta)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One row at a time, as the module's docstring says."""
        seen = self._seen(q, k, context).expand(q.shape[0], 1, q.shape[-2], k.shape[-2])
        weights = exact_softmax(q, k, seen)
        valid = _valid_queries(self.pattern, context)
        out = weights @ v
        for b in range(q.shape[0]):
            for h in range(q.shape[1]):
                if not self.switched[h]:
                    continue
                for i in range(q.shape[-2]):
                    last = i + 1 if self.pattern.causal else q.shape[-2]
                    rows = [r for r in range(last) if valid is None or valid[b, r]]
                    sinks = [
                        j
                        for j in range(k.shape[-2])
                        if seen[b, 0, i, j]
                        and (looking := [r for r in rows if seen[b, 0, r, j]])
                        and weights[b, h, looking, j].mean() > self.threshold
                    ]
                    row = weights[b, h, i].clone()
                    rest = torch.ones_like(row)
                    rest[sinks[1:]] = 0.0
                    left = (row * rest).sum()
                    if left == 0:
                        continue
                    freed = (1 - self.beta) * row[sinks[1:]].sum()
                    row = torch.where(rest.bool(), row * (1 + freed / left), self.beta * row)
                    out[b, h, i] = row @ v[b, h]
        return out


def _valid_queries(pattern: Pattern, context: AttentionContext | None) -> Tensor | None:
    """(B, Lq) bool; in self attention a masked key is a masked query too."""
    if context is None:
        return None
    if pattern.cross or context.query_mask is not None:
        return context.query_mask
    return context.key_mask
