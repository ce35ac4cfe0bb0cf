"""Additive graph attention on a complete graph (GinAR: Yu et al. 2024, arXiv 2405.11333).

    o_i = sum_j softmax_j(LeakyReLU(a_q·q_i + a_k·k_j)) v_j

over the keys j that row i sees; a_q and a_k are two vectors of each head. As LeakyReLU and softmax
are monotone, all queries rank the keys alike, by a_k·k_j: attention whose ranking is static (Brody
et al. 2022, arXiv 2105.14491), a useful control.

In GinAR queries, keys and values are one projection of a variable, and missing variables are to
attend to observed ones. Its code masks by an adjacency that is never zero, so nothing is masked
there; here a missing variable is a masked key. Its dropout of weights is left out, and the ReLU on
the output is an option.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_GAIN = 2**0.5
"""Of the Xavier initialisation of (a_q, a_k), one vector of 2 D numbers, as in GAT."""


@register_attention(
    AttentionInfo(
        id="gat-additive",
        family=Family.SOFTMAX,
        title="Additive graph attention",
        formula="o_i = softmax_j(LeakyReLU(a_q·q_i + a_k·k_j)) v_j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L^2",
        paper="Yu et al., GinAR: An End-To-End Multivariate Time Series Forecasting Model Suitable "
        "for Variable Missing",
        year=2024,
        url="https://arxiv.org/abs/2405.11333",
        options=(
            Option("slope", 0.01, "of LeakyReLU below zero", positive=True),
            Option("relu", False, "ReLU on the output, as GinAR has it"),
        ),
        presets={"ginar": {"slope": 0.01, "relu": True}},
    )
)
class GatAdditive(KeyValueCache):
    """Softmax over sums of a score of the query and one of the key."""

    def __init__(self, spec: AttentionSpec, slope: float = 0.01, relu: bool = False) -> None:
        super().__init__(spec)
        self.slope, self.relu = slope, relu
        bound = _GAIN * (6 / (2 * spec.head_dim + 1)) ** 0.5
        vectors = torch.empty(2, spec.heads, spec.head_dim, 1)
        self.vectors = nn.Parameter(vectors.uniform_(-bound, bound))

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; scores and weights are in float32 at least."""
        return self.attend_once(self._scored(0, q), self._scored(1, k), v, context)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Exponentials of every pair's score, and their sums."""
        of_query, of_key = self.vectors.to(q.dtype)[..., 0]
        sums = torch.einsum("bhid,hd->bhi", q, of_query)[..., None]
        sums = sums + torch.einsum("bhjd,hd->bhj", k, of_key)[..., None, :]
        scores = torch.where(sums > 0, sums, self.slope * sums)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        seen = torch.ones_like(scores, dtype=torch.bool)
        seen = seen if mask is None else seen & mask
        scores = scores.masked_fill(~seen, -torch.inf)
        top = scores.detach().amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
        weights = (scores - top).exp()
        total = weights.sum(-1, keepdim=True)
        out = weights @ v / total.masked_fill(~seen.any(-1, keepdim=True), 1.0)
        return out.clamp(min=0.0) if self.relu else out

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The score and the value of every key."""
        return super().prefill(self._scored(1, k), v, context)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Append the token's score and value, if it has any, and attend."""
        scored = None if k_t is None else self._scored(1, k_t)
        return super().step(self._scored(0, q_t), scored, v_t, state, context)

    def attend_once(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Attention with scores (B, H, Lq, 1) and (B, H, Lk, 1) of queries and keys."""
        scores = F.leaky_relu(q + k.mT, self.slope)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1)
        if mask is not None:
            # Also what is not a number in a row that sees no key.
            weights = weights.masked_fill(~mask, 0.0)
        out = weights @ v.to(weights.dtype)
        return (out.relu() if self.relu else out).to(v.dtype)

    def state_size(self, length: int) -> int:
        """H L (Dv + 1) numbers."""
        return self.spec.heads * length * (self.spec.value_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """Scores of tokens, two operations for a pair's, and the weighted sum."""
        rows = shape.batch * shape.heads
        scores = 2 * rows * (shape.length_q + shape.length_k) * shape.head_dim
        return scores + 2 * rows * shape.length_q * shape.length_k * (shape.value_dim + 1)

    def _scored(self, side: int, x: Tensor) -> Tensor:
        """(B, H, L, 1) scores of queries (side 0) or keys (side 1)."""
        dtype = work_dtype(x)
        return x.to(dtype) @ self.vectors[side].to(dtype)
