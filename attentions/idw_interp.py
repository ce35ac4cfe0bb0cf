"""Inverse-distance interpolation: the values nearest to a query's place, without parameters (Liu et
al. 2024, SymPoint, arXiv 2401.10556, where it brings coarse masks to all points).

    o_i = sum_n w_in v_n / sum_n w_in,   w_in = 1 / (|t_i - t_n| + 1e-8)

over the n keys whose times t are nearest to the query's. **Queries and keys are not read**: a
baseline for cross attention where both sequences lie on one axis. The authors' points lie in a
plane, and n is the product of the strides between two resolutions; here times are the context's
time stamps, or else positions, or else places in the sequence, and n is an option. Where keys are
equally far, those below and above are taken in turns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.gathered import gathered_sums
from attentions.shared.nearest import nearest, nearest_mask
from attentions.shared.places import token_times
from attentions.shared.prefix_sums import safe_divide
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Kind,
    Option,
    Pattern,
    register_attention,
)

_SOFTENING = 1e-8


@register_attention(
    AttentionInfo(
        id="idw-interp",
        family=Family.CONVOLUTIONAL,
        title="Inverse-distance interpolation",
        formula="o_i = sum_n w_in v_n / sum_n w_in, w_in = 1 / (|t_i - t_n| + 1e-8), n nearest",
        patterns={
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        absent={
            Pattern.NONCAUSAL_SELF: "the value nearest to a token is its own: nothing is mixed",
            Pattern.CAUSAL_SELF: "the value nearest to a token is its own: nothing is mixed",
        },
        time="L n D",
        memory="L n",
        paper="Liu et al., Symbol as Points: Panoptic Symbol Spotting via Point-based "
        "Representation",
        year=2024,
        url="https://arxiv.org/abs/2401.10556",
        kind=Kind.MIXER,
        options=(Option("neighbours", 4, "n: values that are interpolated", positive=True),),
    )
)
class InverseDistanceInterpolation(Attention):
    """Means of the nearest values, weighed by the inverse of the distance."""

    def __init__(self, spec: AttentionSpec, neighbours: int = 4) -> None:
        super().__init__(spec)
        self.neighbours = neighbours

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; distances in float64, sums in float32 at least."""
        query, key = token_times(context, q.shape[-2], k.shape[-2], True, _double(q))
        return self._interpolated(query, key, v, None if context is None else context.key_mask)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, written out."""
        query, key = token_times(context, q.shape[-2], k.shape[-2], True, _double(q))
        mask = None if context is None else context.key_mask
        near = nearest_mask(query, key, mask, self.neighbours)
        weights = near / ((query[..., None] - key[:, None]).abs() + _SOFTENING)
        weights = weights[:, None].to(v.dtype)
        total = weights.sum(-1, keepdim=True)
        return safe_divide((weights @ v).expand(*q.shape[:3], -1), total)

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The times and values of the source, its mask, and the place of the next query."""
        _, key = token_times(context, 0, k.shape[-2], True, _double(k))
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        tensors = {"times": key, "v": v, "mask": mask, "place": key.new_zeros(1, 1)}
        return DecodeState(k.shape[-2], tensors)

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Interpolate at the query's time, or else one place behind the query before."""
        tensors, given = state.tensors, context or AttentionContext()
        time = tensors["place"]
        for own in (given.query_times, given.query_positions):
            if own is not None:
                time = torch.atleast_2d(own).to(time)
                break
        tensors["place"] = time + 1
        return self._interpolated(time, tensors["times"], tensors["v"], tensors["mask"]), state

    def state_size(self, length: int) -> int:
        """H L Dv numbers, and L times."""
        return length * (self.spec.heads * self.spec.value_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq n Dv."""
        rows = shape.batch * shape.heads * shape.length_q
        return 2 * rows * min(self.neighbours, shape.length_k) * shape.value_dim

    def _interpolated(self, query: Tensor, key: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H, Lq, Dv) from times (B or 1, L) and values (B, H, Lk, Dv)."""
        near = nearest(query, key, mask, self.neighbours)
        weights = (near.offset.abs() + _SOFTENING).reciprocal().masked_fill(~near.present, 0.0)
        weights = safe_divide(weights, weights.sum(-1, keepdim=True))
        values = v.to(torch.promote_types(v.dtype, torch.float32))
        weights = weights[:, None].to(values.dtype).expand(*v.shape[:2], -1, -1)
        return gathered_sums(values, weights, near.keys).to(v.dtype)


def _double(x: Tensor) -> Tensor:
    """Of the dtype that distances are taken in: times may be large beside their differences."""
    return x.new_empty(0, dtype=torch.float64)
