"""Positional attention: weights from positions alone (Back de Luca et al. 2025, arXiv 2410.01686).

    o_i = sum_j p_ij v_j,   p = softmax over j of (W_q P_i + b_q)·(W_k P_j + b_k) / sqrt(d)

over the keys j that row i sees. P_i are d sines and cosines of the position of token i; the queries
and keys of the layer are not read. So what is mixed with what does not depend on the data, and the
output is linear in the values.

The authors encode positions as one-hot vectors, a learned row for every position; sines and cosines
have no longest sequence. d is the width of a head. The map is the same for every row of the batch
and is computed once, unless masks or positions differ between rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax, exact_softmax_attention
from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from attentions.softmax import SoftmaxAttention
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

_LONGEST_WAVE = 10_000.0


@register_attention(
    AttentionInfo(
        id="positional",
        family=Family.CONVOLUTIONAL,
        title="Positional attention",
        formula="o_i = softmax_j((W_q P_i + b_q)·(W_k P_j + b_k) / sqrt(d)) v_j, "
        "P sines and cosines of positions",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D",
        memory="L^2",
        paper="Back de Luca et al., Positional Attention: Expressivity and Learnability of "
        "Algorithmic Computation",
        year=2025,
        url="https://arxiv.org/abs/2410.01686",
        options=(Option("width", 0, "d: numbers that encode a position; 0: head_dim", least=0),),
    )
)
class PositionalAttention(Attention):
    """Softmax weights of encoded positions."""

    def __init__(self, spec: AttentionSpec, width: int = 0) -> None:
        super().__init__(spec)
        self.width = width or spec.head_dim
        self.plain = SoftmaxAttention(spec)
        maps = torch.empty(2, spec.heads, self.width, self.width)
        for matrix in maps.flatten(0, 1):
            nn.init.xavier_uniform_(matrix)
        self.maps = nn.Parameter(maps)
        self.shifts = nn.Parameter(torch.zeros(2, spec.heads, 1, self.width))

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        of_queries, of_keys = self._encoded(q, k, work_dtype(v), context)
        masked = context is not None and context.key_mask is not None
        wide = v.to(of_keys.dtype)
        if masked or max(len(of_queries), len(of_keys)) > 1:
            of_queries, of_keys = (x.expand(len(v), -1, -1, -1) for x in (of_queries, of_keys))
            scale = self.width**-0.5
            return self.plain.fused(of_queries, of_keys, wide, context, scale).to(v.dtype)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], None, v.device)
        weights = exact_softmax(of_queries, of_keys, mask)[0]
        # All rows of the batch in one product with the map.
        values = wide.permute(1, 2, 0, 3)
        out = weights @ values.flatten(2)
        return out.unflatten(2, values.shape[2:]).permute(2, 0, 1, 3).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Softmax attention with encoded positions in the place of queries and keys."""
        of_queries, of_keys = self._encoded(q, k, work_dtype(v), context)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        of_keys = of_keys.expand(len(v), -1, -1, -1)
        return exact_softmax_attention(of_queries, of_keys, v, mask)

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Values, encoded keys and key mask, and the place of the next query."""
        places = _places(None if context is None else context.key_positions, k)
        following = places.new_zeros(1, 1)
        if not self.pattern.cross and k.shape[-2]:
            following = places.amax(-1, keepdim=True) + 1
        mask = k.new_ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        keys = self._encode(1, places, work_dtype(v)).expand(len(v), -1, -1, -1)
        tensors = {"k": keys, "v": v, "mask": mask, "next": following}
        return DecodeState(k.shape[-2], tensors)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Append the token's value and place, if it has any, and attend from its place."""
        tensors = state.tensors
        place = tensors["next"]
        if context is not None and context.query_positions is not None:
            place = _places(context.query_positions, q_t)
        dtype = tensors["k"].dtype
        if v_t is not None:
            keys = self._encode(1, place, dtype).expand(len(v_t), -1, -1, -1)
            own = tensors["mask"].new_ones(len(v_t), 1)
            tensors["k"] = torch.cat([tensors["k"], keys], dim=-2)
            tensors["v"] = torch.cat([tensors["v"], v_t], dim=-2)
            tensors["mask"] = torch.cat([tensors["mask"], own], dim=-1)
            state.length += 1
        tensors["next"] = place + 1
        mask = tensors["mask"][:, None, None, :]
        values = tensors["v"]
        out = exact_softmax_attention(
            self._encode(0, place, dtype), tensors["k"], values.to(dtype), mask
        )
        return out.to(values.dtype), state

    def state_size(self, length: int) -> int:
        """H L (d + Dv) numbers and a place."""
        return self.spec.heads * length * (self.width + self.spec.value_dim) + 1

    def flops(self, shape: AttentionShape) -> float:
        """Of encoded positions and the map, once, and of the mixing in every row of the batch."""
        heads, pairs = shape.heads, shape.heads * shape.length_q * shape.length_k
        encoded = 2 * heads * (shape.length_q + shape.length_k) * self.width**2
        return encoded + 2 * pairs * (self.width + shape.batch * shape.value_dim)

    def _encoded(
        self, q: Tensor, k: Tensor, dtype: torch.dtype, context: AttentionContext | None
    ) -> tuple[Tensor, Tensor]:
        """(B or 1, H, Lq, d) and (B or 1, H, Lk, d), which stand in for queries and keys."""
        given = AttentionContext() if context is None else context
        places = _places(given.key_positions, k)
        if self.pattern.cross:
            of_queries = _places(given.query_positions, q)
        else:
            of_queries = places[:, k.shape[-2] - q.shape[-2] :]
        return self._encode(0, of_queries, dtype), self._encode(1, places, dtype)

    def _encode(self, side: int, places: Tensor, dtype: torch.dtype) -> Tensor:
        """Of queries (side 0) or keys (side 1) at places (b, L): (b, H, L, d)."""
        waves = sinusoids(places, self.width).to(dtype)[:, None]
        return waves @ self.maps[side].to(dtype) + self.shifts[side].to(dtype)


def sinusoids(places: Tensor, width: int) -> Tensor:
    """(..., L, width) float64 sines, then cosines, of positions (..., L).

    Wavelengths grow from 2 pi by a constant factor up to about 10,000 times that. In float64: an
    angle of some thousands has few digits left in float32.
    """
    half = (width + 1) // 2
    index = torch.arange(half, dtype=torch.float64, device=places.device)
    angles = places.double()[..., None] * _LONGEST_WAVE ** (-index / half)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)[..., :width]


def _places(positions: Tensor | None, x: Tensor) -> Tensor:
    """(b, L) positions of tokens (B, H, L, D); b is 1 where all rows have the same."""
    if positions is None:
        return torch.arange(x.shape[-2], device=x.device)[None]
    positions = torch.atleast_2d(positions)
    same = len(positions) > 0 and bool((positions == positions[:1]).all())
    return positions[:1] if same else positions
