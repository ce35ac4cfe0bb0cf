"""Visual Attention Redistribution: weight on sinks goes to other keys, in rows that attend well.

Kang et al. 2025 (arXiv 2503.03321, and their published code). A key is a sink where a dimension of
its layer input is massive: max_d |RMSNorm(h_j)_d| > tau. Rows that give sinks at most the portion
rho of their weight (the authors' image-centric heads) have the weights of sinks scaled by p, and
the freed mass goes to the other keys in proportion to their weights.
"""

from __future__ import annotations

import torch
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

_PUBLISHED_TAU, _PUBLISHED_WIDTH = 20.0, 4096
"""For LLaMA-2-7B; a normalised dimension can reach the square root of the width"""


@register_attention(
    AttentionInfo(
        id="softmax+var-redist",
        family=Family.MODIFIER,
        title="Softmax, sinks redistributed (VAR)",
        formula="A'_ij = p A_ij at sinks j, their mass spread over the other keys",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L^2 D",
        memory="L^2",
        paper="Kang et al., See What You Are Told: Visual Attention Sink in Multimodal Models",
        year=2025,
        url="https://arxiv.org/abs/2503.03321",
        kind=Kind.MODIFIER,
        options=(
            Option(
                "tau",
                0.3125,
                "largest normalised dimension of an ordinary key, over the root of the width",
                least=0.0,
            ),
            Option("rho", 0.5, "largest portion on sinks of a row that is changed", least=0.0),
            Option("p", 0.6, "factor of a sink's weights; 1 changes nothing", least=0.0),
        ),
    )
)
class AttentionRedistribution(ModifiedSoftmax):
    """Redistributed sinks.

    Adapted: the published criterion looks at dimensions that are known to be massive in one model
    and compares with 20, at a width of 4096; here any dimension counts, and tau is that bar over
    the root of the width. There are no image tokens: all keys are the segment that receives.
    Without layer inputs in the context the keys of all heads take their place.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        tau: float = _PUBLISHED_TAU / _PUBLISHED_WIDTH**0.5,
        rho: float = 0.5,
        p: float = 0.6,
    ) -> None:
        super().__init__(spec)
        if p > 1:
            raise ValueError(f"p must be at most 1, not {p}")
        self.tau, self.rho, self.p = tau, rho, p

    def modified_map(
        self, q: Tensor, k: Tensor, seen: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """See `ModifiedSoftmax.modified_map`."""
        scores = wide_scores(q, k)
        weights = softmax_over(scores, seen)
        sinks = self._sinks(k, context)[:, None, None, :]
        portion = (weights * sinks).sum(-1, keepdim=True)
        changed = moved(scores, weights, sinks, seen & ~sinks, self.p)
        return torch.where(portion <= self.rho, changed, weights)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One row at a time, as the module's docstring says."""
        seen = self._seen(q, k, context).expand(len(q), 1, q.shape[-2], k.shape[-2])
        weights = exact_softmax(q, k, seen)
        sinks = self._sinks(k, context)
        for b, h, i in torch.cartesian_prod(*map(torch.arange, weights.shape[:3])).tolist():
            row, sink, rest = weights[b, h, i], sinks[b], seen[b, 0, i] & ~sinks[b]
            on_sinks = row[sink].sum()
            if self.switched[h] and on_sinks <= self.rho and rest.any():
                share = (k[b, h, rest] @ q[b, h, i] * q.shape[-1] ** -0.5).softmax(0)
                changed = self.p * row
                changed[rest] = row[rest] + (1 - self.p) * on_sinks * share
                weights[b, h, i] = changed
        return weights @ v

    def _sinks(self, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B, Lk) bool."""
        inputs = None if context is None else context.key_input
        if inputs is None:
            inputs = k.transpose(1, 2).flatten(2)
        wide = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        root_mean_square = wide.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
        return (wide / root_mean_square).abs().amax(-1) > self.tau * wide.shape[-1] ** 0.5
