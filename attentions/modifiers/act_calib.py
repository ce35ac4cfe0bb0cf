"""Attention Calibration: weight is taken from attention sinks other than the first one.

Yu et al. 2024 (arXiv 2406.15765, Attention Calibration Technique, and their published code). The
mean weight that key j gets from the queries that see it is m_j. Sinks are the keys with m_j above a
threshold; the first of them is kept. In every row the weights of the others are scaled by beta, and
the freed mass goes to all other keys in proportion to their weights. It acts in heads that were
chosen on held-out data, one at a time.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from attentions.shared.exact import exact_softmax
from attentions.shared.modified_softmax import ModifiedSoftmax, moved, softmax_over, wide_scores
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

_MARGIN = 1 + 1e-4
"""Above a threshold is above by more than rounding: weights of ones and zeros have means that are
simple fractions, and a threshold may be one of them."""


@register_attention(
    AttentionInfo(
        id="softmax+act-calib",
        family=Family.MODIFIER,
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
        """See `ModifiedSoftmax.modified_map`.

        Raises:
            NotImplementedError: causal self attention without the queries of all tokens.
        """
        if self.pattern is Pattern.CAUSAL_SELF and q.shape[-2] < k.shape[-2]:
            raise NotImplementedError(
                "softmax+act-calib takes the mean over all queries up to a row's own: in causal "
                f"self attention call it with as many queries as keys, not {q.shape[-2]} and "
                f"{k.shape[-2]}"
            )
        scores = wide_scores(q, k)
        weights = softmax_over(scores, seen)
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
        sinks = (sums > self.threshold * _MARGIN * queries) & seen
        others = sinks & (sinks.cumsum(-1) > 1)
        return moved(scores, weights, others, seen & ~others, self.beta)

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
                        and weights[b, h, looking, j].mean() > self.threshold * _MARGIN
                    ]
                    rest = seen[b, 0, i].clone()
                    rest[sinks[1:]] = False
                    if not rest.any():
                        continue
                    row = weights[b, h, i]
                    freed = (1 - self.beta) * row[sinks[1:]].sum()
                    share = (k[b, h, rest] @ q[b, h, i] * q.shape[-1] ** -0.5).softmax(0)
                    row = self.beta * row
                    row[rest] = weights[b, h, i, rest] + freed * share
                    out[b, h, i] = row @ v[b, h]
        return out


def _valid_queries(pattern: Pattern, context: AttentionContext | None) -> Tensor | None:
    """(B, Lq) bool; in self attention a masked key is a masked query too."""
    if context is None:
        return None
    if pattern.cross or context.query_mask is not None:
        return context.query_mask
    return context.key_mask
