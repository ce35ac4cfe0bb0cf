"""Softmax attention with a Taylor polynomial for the exponential (Mongaras and Larson 2025, arXiv
2507.23632).

    o_i = sum_j P(s_ij) v_j / sum_j P(s_ij),   P(s) = sum_{n<=N} s^n / n!

with s_ij = q_i·k_j / sqrt(D), over the keys j that row i sees. Each power of s is a linear
attention on tensor powers of queries and keys, so P is a sum of recurrent networks whose states
have D^n Dv numbers; N to infinity is softmax. A polynomial of even order is positive everywhere,
one of odd order is not: N is even.

N = 2 is linear in the length: it has R = 1 + D + D (D + 1) / 2 features, whose sums over keys are
prefix sums where causal. Sequences of no more than R keys, where that costs more, and higher orders
write the scores out. The powers of an order above two cancel for scores far below zero, so they are
computed in float64, as the authors do for their 80 terms. Their code of that computes the
denominator and returns the numerator; here it is divided by it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.masks import visible
from attentions.shared.prefix_sums import read_sums, safe_divide, sums_of
from attentions.shared.taylor import (
    polynomial_attention,
    polynomial_flops,
    taylor_attention,
    taylor_features,
    taylor_flops,
    taylor_width,
)
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


@register_attention(
    AttentionInfo(
        id="softmax-taylor",
        family=Family.LINEAR,
        title="Softmax with a Taylor polynomial",
        formula="o_i = sum_j P(s_ij) v_j / sum_j P(s_ij), P(s) = sum_{n<=N} s^n / n!, "
        "s_ij = q_i·k_j / sqrt(D)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^3",
        memory="L D^2",
        paper="Mongaras and Larson, On the Expressiveness of Softmax Attention: "
        "A Recurrent Neural Network Perspective",
        year=2025,
        url="https://arxiv.org/abs/2507.23632",
        options=(
            Option("order", 2, "N: highest power, even; above 2 quadratic in L", least=2, most=80),
        ),
        presets={"80-terms": {"order": 80}},
    )
)
class SoftmaxTaylor(KeyValueCache):
    """Weights that are a polynomial of the scores.

    The authors' 80 terms are the powers 0 to 79; the preset has the power 80 too, which makes the
    order even.
    """

    def __init__(self, spec: AttentionSpec, order: int = 2) -> None:
        super().__init__(spec)
        if order % 2:
            raise ValueError(
                f"order must be even, not {order}: a polynomial of odd order has zeros, "
                "and the weights no positive sum"
            )
        self.order = order

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; sums are kept in float32 at least."""
        if self.order > 2:
            return polynomial_attention(q, k, v, self.order, self.pattern, context)
        return taylor_attention(q, k, v, self.pattern, context)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The powers of the scores, added up from the last."""
        scores = (q @ k.mT).double() / q.shape[-1] ** 0.5
        factorials = torch.arange(self.order + 1, dtype=scores.dtype, device=q.device)
        factorials = (factorials + 1).lgamma()
        weights = torch.zeros_like(scores)
        for power in range(self.order, -1, -1):
            weights = weights + scores**power * (-factorials[power]).exp()
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is not None:
            weights = weights * mask
        means = safe_divide(weights @ v.double(), weights.sum(-1, keepdim=True))
        return means.to(v.dtype)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """With N = 2 the sums over features, (B, H, R, Dv + 1); else the keys and values."""
        if self.order > 2:
            return super().prefill(k, v, context)
        mask = None if context is None else context.key_mask
        return DecodeState(k.shape[-2], {"sums": sums_of(taylor_features(k, mask), v)})

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
        if self.order > 2:
            return super().step(q_t, k_t, v_t, state, context)
        if k_t is not None and v_t is not None:
            state.tensors["sums"] = state.tensors["sums"] + sums_of(taylor_features(k_t), v_t)
            state.length += k_t.shape[-2]
        return read_sums(taylor_features(q_t), state.tensors["sums"]).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H R (Dv + 1) numbers, whatever the length; with N > 2 those of a cache."""
        if self.order > 2:
            return super().state_size(length)
        return self.spec.heads * taylor_width(self.spec.head_dim) * (self.spec.value_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """Of the sums over features; where scores are written out, of these, powers and means."""
        if self.order == 2:
            return taylor_flops(shape, causal=self.pattern is Pattern.CAUSAL_SELF)
        return polynomial_flops(shape, self.order)
