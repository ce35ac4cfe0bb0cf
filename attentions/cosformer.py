"""cosFormer: linear attention with relu features and a cosine of the distance (Qin et al. 2022,
arXiv 2202.08791).

    o_i = sum_j a_ij v_j / max(sum_j a_ij, 1e-6)
    a_ij = relu(q_i)·relu(k_j) cos(pi / 2 · (i - j) / M)

over the keys j that row i sees; positions count from 1. As cos(a - b) = cos a cos b + sin a sin b,
the weight is a product of 2 D features of the query and the key, and the cost linear.

The horizon M has to be at least the distance of any query and key, or cosines turn negative. The
paper and CAB set it to the longer of both sequences, and so does this module where a pattern is
noncausal. That is no form for a causal pattern, where an output may not depend on how many tokens
will follow: there M is fixed, and a token beyond position M counts as one at position M.

Positions are those of the context, or else the tokens' places in their sequence, masked tokens
counted; M is taken from the last valid one. CAB's code ignores padding. Queries and keys of two
sequences are compared by their positions as they are, as in CAB. The denominator's bound is that of
both codes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.features import relu_features
from attentions.shared.masks import visible
from attentions.shared.prefix_sums import (
    linear_attention,
    linear_attention_flops,
    read_sums,
    safe_divide,
    sums_of,
    turned_features,
)
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

_CAUSAL_HORIZON = 8192
_LEAST_DENOMINATOR = 1e-6


@register_attention(
    AttentionInfo(
        id="cosformer",
        family=Family.LINEAR,
        title="cosFormer",
        formula="o_i = sum_j a_ij v_j / sum_j a_ij, "
        "a_ij = relu(q_i)·relu(k_j) cos(pi (i - j) / 2 M)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L D^2",
        memory="L D",
        paper="Qin et al., cosFormer: Rethinking Softmax in Attention",
        year=2022,
        url="https://arxiv.org/abs/2202.08791",
        options=(
            Option(
                "horizon",
                0,
                "M: distance at which weights reach zero; 0: the length, or 8192 where causal",
                least=0,
                most=10**12,
            ),
        ),
        presets={"cab": {"horizon": 0}},
    )
)
class CosFormer(Attention):
    """Linear attention with relu features and a cosine of the distance."""

    def __init__(self, spec: AttentionSpec, horizon: int = 0) -> None:
        super().__init__(spec)
        self.horizon = horizon or (_CAUSAL_HORIZON if spec.pattern.causal else 0)
        """M; 0: the longer of both sequences."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; features and sums are kept in float32 at least."""
        fq, fk = relu_features(q), relu_features(k)
        out, _ = linear_attention(
            fq,
            fk,
            v.to(fk.dtype),
            causal=self.pattern is Pattern.CAUSAL_SELF,
            angles=self._angles(fq, fk, context),
            floor=_LEAST_DENOMINATOR,
        )
        return out.to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, written out."""
        angle_q, angle_k = self._angles(q, k, context)
        cosine = (angle_q[:, None, :, None] - angle_k[:, None, None, :]).cos()
        weights = relu_features(q) @ relu_features(k).mT * cosine
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is not None:
            weights = weights * mask
        return safe_divide(weights @ v, weights.sum(-1, keepdim=True), _LEAST_DENOMINATOR)

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The sums over the keys, (B, H, 2 D, Dv + 1), and the last position of the queries."""
        fk, given = relu_features(k), context or AttentionContext()
        positions = _positions(given.key_positions, fk)
        sums = sums_of(turned_features(fk, self._angle(positions, self.horizon)), v)
        # The next token stands behind the prompt, whether or not that ends with masked tokens.
        last = _last(positions, None)
        if self.pattern.cross:  # the queries are another sequence, of which none has come yet
            last = torch.zeros_like(last)
        return DecodeState(k.shape[-2], {"sums": sums, "position": last})

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Add the token's key and value to the sums, if it has any, and read them.

        The token stands behind that of the step before, unless the context has its position.
        """
        tensors = state.tensors
        if context is not None and context.query_positions is not None:
            tensors["position"] = _positions(context.query_positions, tensors["sums"])
        else:
            tensors["position"] = tensors["position"] + 1
        angle = self._angle(tensors["position"], self.horizon)
        if k_t is not None and v_t is not None:
            fk = turned_features(relu_features(k_t), angle)
            tensors["sums"] = tensors["sums"] + sums_of(fk, v_t)
            state.length += k_t.shape[-2]
        fq = turned_features(relu_features(q_t), angle)
        return read_sums(fq, tensors["sums"], _LEAST_DENOMINATOR).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """2 H D (Dv + 1) numbers and a position, whatever the length."""
        return 2 * self.spec.heads * self.spec.head_dim * (self.spec.value_dim + 1) + 1

    def flops(self, shape: AttentionShape) -> float:
        """4 B H (Lq + Lk) D (Dv + 1), and causally the products within a chunk."""
        causal = self.pattern is Pattern.CAUSAL_SELF
        return linear_attention_flops(shape, shape.head_dim, causal=causal, turned=True)

    def _angles(
        self, q: Tensor, k: Tensor, context: AttentionContext | None
    ) -> tuple[Tensor, Tensor]:
        """Angles pi / 2 · position / M, (B or 1, Lq) and (B or 1, Lk)."""
        given = context or AttentionContext()
        of_keys = _positions(given.key_positions, k)
        if self.pattern.cross:
            of_queries = _positions(given.query_positions, q)
        else:
            of_queries = of_keys[:, k.shape[-2] - q.shape[-2] :]
        horizon: Tensor | int = self.horizon
        if not horizon:
            horizon = _last(of_keys, given.key_mask)
            if self.pattern.cross:
                horizon = torch.maximum(horizon, _last(of_queries, given.query_mask))
            horizon = horizon.clamp(min=1.0)
        return self._angle(of_queries, horizon), self._angle(of_keys, horizon)

    @staticmethod
    def _angle(positions: Tensor, horizon: Tensor | int) -> Tensor:
        return math.pi / 2 * (positions / horizon).clamp(max=1.0)


def _positions(given: Tensor | None, x: Tensor) -> Tensor:
    """(B or 1, L) positions from 1, in the dtype of x: those given, or the places in x."""
    if given is not None:
        return (torch.atleast_2d(given) + 1).to(x.dtype)
    return torch.arange(1, x.shape[-2] + 1, dtype=x.dtype, device=x.device)[None]


def _last(positions: Tensor, mask: Tensor | None) -> Tensor:
    """(B or 1, 1) largest position of a valid token; 0 where there is none."""
    if mask is not None:
        positions = positions.masked_fill(~mask, 0.0)
    return F.pad(positions, (1, 0)).amax(-1, keepdim=True)
