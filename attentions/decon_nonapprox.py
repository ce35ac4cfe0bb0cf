"""Weights that keys have by themselves (Xue et al. 2025, arXiv 2510.11602, Non-approximate).

    o_i = sum_{j<=i} exp(e_j) v_j / sum_{j<=i} exp(e_j),   e_j = SiLU(q_j)·k_j / sqrt(D)

The score of a token comes from its own query and key, so all later queries weigh it alike: a
running mean, in time linear in the length. Two tokens never meet in a score.

The query of a token is needed with its key. So there is no form for cross attention; without a
causal mask every output would be one and the same mean; and nothing can be decoded after a prompt
of which only keys and values are given: there is no step, and fewer queries than keys are refused.

In the paper training fails with it in all layers and works with softmax attention in even layers
(``hybrid``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.alternating import Alternating
from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from attentions.shared.prefix_softmax import NO_MASS, prefix_softmax_means
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
        id="decon-nonapprox",
        family=Family.RECURRENT,
        title="Running mean weighted by keys alone",
        formula="o_i = sum_{j<=i} exp(e_j) v_j / sum_{j<=i} exp(e_j), "
        "e_j = SiLU(q_j)·k_j / sqrt(D)",
        patterns={Pattern.CAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.NONCAUSAL_SELF: "every output would be the same mean of all values",
            Pattern.NONCAUSAL_CROSS: "a key of another sequence has no query of its own",
            Pattern.CAUSAL_CROSS: "a key of another sequence has no query of its own",
        },
        time="L D",
        memory="L D",
        paper="Xue et al., Deconstructing Attention: Investigating Design Principles for Effective "
        "Language Modeling",
        year=2025,
        url="https://arxiv.org/abs/2510.11602",
        options=(Option("hybrid", False, "softmax attention in layers 0, 2, ..."),),
    )
)
class DeconNonapprox(Alternating):
    """A running softmax mean."""

    def __init__(self, spec: AttentionSpec, hybrid: bool = False) -> None:
        super().__init__(spec, hybrid)

    @without_autocast
    def mixed(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None) -> Tensor:
        """See `cab.Attention.forward`; in float32 at least.

        Raises:
            NotImplementedError: there are fewer queries than keys.
        """
        dtype = work_dtype(v)
        scores = self._scores(q.to(dtype), k.to(dtype))
        if context is not None and context.key_mask is not None:
            scores = scores.masked_fill(~context.key_mask[:, None], NO_MASS)
        return prefix_softmax_means(scores, v.to(dtype))[0].to(v.dtype)

    def mixed_plainly(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """Softmax attention of queries 1 to keys that are the scores, under the causal mask."""
        scores = self._scores(q, k)[..., None]
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        return exact_softmax_attention(torch.ones_like(scores), scores, v, mask, scale=1.0)

    def mixing_flops(self, shape: AttentionShape) -> float:
        """Of the scores, and of the chunks of 32 tokens."""
        rows = shape.batch * shape.heads * shape.length_k
        return rows * (6 * shape.head_dim + 2 * 32 * (shape.value_dim + 1))

    @staticmethod
    def _scores(q: Tensor, k: Tensor) -> Tensor:
        """(B, H, L) of every token."""
        if q.shape[-2] != k.shape[-2]:
            raise NotImplementedError("decon-nonapprox scores a key by the query of its own token")
        return (F.silu(q) * k).sum(-1) * q.shape[-1] ** -0.5
