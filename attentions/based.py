"""Based: linear attention with the exponential's Taylor features of narrow queries and keys
(Arora et al. 2024, arXiv 2402.18668).

    o_i = sum_j P(s_ij) v_j / sum_j P(s_ij),   P(s) = 1 + s + s^2 / 2,   s_ij = q'_i·k'_j / sqrt(F)
    q' = W_q q,  k' = W_k k,  F numbers each

P is the Taylor polynomial of the exponential at 0, never below 1/2, and a product of R = 1 + F +
F (F + 1) / 2 features, so that what is kept of a sequence are R (Dv + 1) numbers a head: F chooses
between recall and memory (the authors: 16, where the full width would need thousands of features).
The published layer projects its input to F numbers; here the backbone has projected it to D, and a
second map for each head, from D to F and without bias, is learned.

The published model has such layers and layers with windows of 64 keys or so, which see neighbours
precisely: ``--hybrid based:1,local:1``; and short convolutions: ``--conv 4``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentions.shared.autocast import without_autocast
from attentions.shared.masks import visible
from attentions.shared.prefix_sums import read_sums, safe_divide, sums_of
from attentions.shared.taylor import taylor_attention, taylor_features, taylor_flops, taylor_width
from cab import (
    Attention,
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


@register_attention(
    AttentionInfo(
        id="based",
        family=Family.LINEAR,
        title="Taylor features of narrow queries and keys",
        formula="o_i = sum_j P(s_ij) v_j / sum_j P(s_ij), P(s) = 1 + s + s^2 / 2, "
        "s_ij = (W_q q_i)·(W_k k_j) / sqrt(F)",
        patterns={
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L F^2 D",
        memory="F^2 D",
        paper="Arora et al., Simple linear attention language models balance the "
        "recall-throughput tradeoff",
        year=2024,
        url="https://arxiv.org/abs/2402.18668",
        options=(Option("features", 16, "F: width of q' and k'", least=1, most=256),),
    )
)
class Based(Attention):
    """Linear attention whose weights are a polynomial of narrow scores."""

    def __init__(self, spec: AttentionSpec, features: int = 16) -> None:
        super().__init__(spec)
        self.features = features
        shape = (spec.heads, spec.head_dim, features)
        self.query_map = nn.Parameter(torch.empty(shape))
        self.key_map = nn.Parameter(torch.empty(shape))
        for weight in (self.query_map, self.key_map):
            nn.init.normal_(weight, std=spec.head_dim**-0.5)

    def _narrow(self, x: Tensor, weight: Tensor) -> Tensor:
        """(B, H, L, F)"""
        return x.to(weight.dtype) @ weight

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; sums are kept in float32 at least."""
        narrow_q, narrow_k = self._narrow(q, self.query_map), self._narrow(k, self.key_map)
        return taylor_attention(narrow_q, narrow_k, v, self.pattern, context)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The scores written out."""
        scores = (q @ self.query_map) @ (k @ self.key_map).mT / self.features**0.5
        weights = 1 + scores + scores.square() / 2
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is not None:
            weights = weights * mask
        return safe_divide(weights @ v, weights.sum(-1, keepdim=True))

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The sums over features, (B, H, R, Dv + 1)."""
        mask = None if context is None else context.key_mask
        features = taylor_features(self._narrow(k, self.key_map), mask)
        return DecodeState(k.shape[-2], {"sums": sums_of(features, v)})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Add the token's key and value to the sums, if it has any, and read them."""
        if k_t is not None and v_t is not None:
            features = taylor_features(self._narrow(k_t, self.key_map))
            state.tensors["sums"] = state.tensors["sums"] + sums_of(features, v_t)
            state.length += k_t.shape[-2]
        features = taylor_features(self._narrow(q_t, self.query_map))
        return read_sums(features, state.tensors["sums"]).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H R (Dv + 1) numbers, whatever the length."""
        return self.spec.heads * taylor_width(self.features) * (self.spec.value_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """Of the two maps, and of the sums over features or the scores."""
        tokens = shape.batch * shape.heads * (shape.length_q + shape.length_k)
        narrow = AttentionShape(
            shape.batch, shape.heads, shape.length_q, shape.length_k, self.features, shape.value_dim
        )
        maps = 2 * tokens * shape.head_dim * self.features
        return maps + taylor_flops(narrow, causal=self.pattern is Pattern.CAUSAL_SELF)
