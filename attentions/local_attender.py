"""Local Attender: every query weighs the values around its place by itself, without keys (Walmer et
al. 2026, UPLiFT, arXiv 2601.17950).

    a_i = softmax_n(W q_i + b + q_i[:n]),   o_i = sum_n a_in v[parent(i) + offset_n]

The logits of the n offsets are a linear map of the query, to which its first n dimensions are added
(the authors' residual), and **keys are not read**. A query's parent is the value in whose share of
the sequence it stands: floor(i Lk / Lq), the query's own place where there are as many of both
(dynamic convolution). Offsets beyond the border give the value at the border (replicate padding).

Published for images, upsampling features by a whole factor, with 5, 9, 13, 17 (the default) or 25
offsets on the grid and one map of weights for all channels. Here every head has its own map. On
sequences the default is a line, `radius` values to each side; the published sets apply where the
context has the shapes of the grids of queries and keys, and without them the sequence is a grid of
one row. Causally, the n offsets are the last n tokens, and what lies before the first is absent.

Places are positions: those of the context, or else places in the sequence. The lengths are those up
to the last valid token. A masked value is left out of the softmax.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.gathered import gathered_sums
from attentions.shared.positions import at_positions, prompt_at_positions
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

_NEAR = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
_SQUARE = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
_GRID_OFFSETS: dict[str, list[tuple[int, int]]] = {
    "5": [(y, x) for y, x in _NEAR if abs(y) + abs(x) <= 1],
    "9": _NEAR,
    "13": [(y, x) for y, x in _SQUARE if abs(y) + abs(x) <= 2],
    "17": [(y, x) for y, x in _SQUARE if abs(y) == abs(x) or y == 0 or x == 0],
    "25": _SQUARE,
}
"""Rows and columns from the parent, as published."""


@register_attention(
    AttentionInfo(
        id="local-attender",
        family=Family.WINDOWED,
        title="Local Attender (UPLiFT)",
        formula="o_i = sum_n a_in v[floor(i Lk / Lq) + offset_n], a_i = softmax(W q_i + b + q_i)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
        },
        absent={
            Pattern.CAUSAL_CROSS: "a query's place among the values follows from how many queries "
            "there are, which is not known while they are generated",
        },
        time="L n D",
        memory="L (D + n)",
        paper="Walmer et al., UPLiFT: Efficient Pixel-Dense Feature Upsampling with Local "
        "Attenders",
        year=2026,
        url="https://arxiv.org/abs/2601.17950",
        options=(
            Option(
                "offsets",
                "line",
                "the values around the parent: a line, or a published set on a grid",
                choices=("line", "5", "9", "13", "17", "25"),
            ),
            Option("radius", 4, "values on each side, of a line", least=0),
            Option("residual", True, "add the query's first dimensions to the logits"),
        ),
        presets={"uplift": {"offsets": "17", "residual": True}},
    )
)
class LocalAttender(Attention):
    """Weights from the query alone, of the values around its place.

    Adapted: a line of offsets on sequences; causally the last tokens.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        offsets: str = "line",
        radius: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__(spec)
        line = [(0, x) for x in range(-radius, radius + 1)]
        self.offsets = _GRID_OFFSETS.get(offsets, line)
        self.residual = residual
        if spec.pattern is Pattern.CAUSAL_SELF:
            self.offsets = [(0, x) for x in range(1 - len(self.offsets), 1)]
        bound = spec.head_dim**-0.5
        count = len(self.offsets)
        self.weight = nn.Parameter(
            torch.empty(spec.heads, spec.head_dim, count).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(spec.heads, count).uniform_(-bound, bound))

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        values = v.to(torch.promote_types(v.dtype, torch.float32))
        index, present = self._places(q.shape[-2], v.shape[-2], context, q.device)
        weights = _softmax(self._logits(q.to(values.dtype)), present)
        return gathered_sums(values, weights, index).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """A matrix of weights between queries and values, offset by offset."""
        index, present = self._places(q.shape[-2], v.shape[-2], context, q.device)
        weights = _softmax(self._logits(q), present)
        key = torch.arange(v.shape[-2], device=q.device)
        matrix = q.new_zeros(*q.shape[:3], v.shape[-2])
        for n in range(len(self.offsets)):
            here = index[:, None, :, n, None] == key
            matrix = matrix + weights[..., n, None] * here
        return matrix @ v

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The last n - 1 values and their mask."""
        start = max(0, v.shape[-2] - len(self.offsets) + 1)
        mask = v.new_ones(v.shape[0], v.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None:
            mask = context.key_mask
        return DecodeState(v.shape[-2], {"v": v[..., start:, :], "mask": mask[:, start:]})

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Weigh the kept values and the token's own."""
        assert v_t is not None
        tensors = state.tensors
        values = torch.cat([tensors["v"], v_t], dim=-2)
        mask = F.pad(tensors["mask"], (0, 1), value=True)
        dtype = torch.promote_types(v_t.dtype, torch.float32)
        logits = self._logits(q_t.to(dtype))[..., -values.shape[-2] :]
        out = _softmax(logits, mask[:, None]) @ values.to(dtype)
        start = max(0, values.shape[-2] - len(self.offsets) + 1)
        state.tensors = {"v": values[..., start:, :], "mask": mask[:, start:]}
        state.length += 1
        return out.to(v_t.dtype), state

    def state_size(self, length: int) -> int:
        """H Dv numbers for each of at most n - 1 tokens."""
        return self.spec.heads * self.spec.value_dim * min(length, len(self.offsets) - 1)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq n (D + Dv)."""
        rows = shape.batch * shape.heads * shape.length_q
        return 2 * rows * len(self.offsets) * (shape.head_dim + shape.value_dim)

    def _logits(self, q: Tensor) -> Tensor:
        """(B, H, Lq, n)."""
        logits = q @ self.weight.to(q.dtype) + self.bias.to(q.dtype)[:, None]
        if not self.residual:
            return logits
        count = len(self.offsets)
        return logits + F.pad(q[..., :count], (0, max(0, count - q.shape[-1])))

    def _places(
        self, length_q: int, length_k: int, context: AttentionContext | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Which value each offset of a query is, and whether there is one: (B or 1, Lq, n)."""
        offsets = torch.tensor(self.offsets, device=device)
        given = context or AttentionContext()
        query = torch.arange(length_q, device=device)
        present = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
        grid_q, grid_k = given.query_grid, given.key_grid
        if not self.pattern.cross:
            grid_k = grid_q = grid_q if length_q == length_k else None
        if self.pattern is Pattern.CAUSAL_SELF:
            index = query[None, :, None] + length_k - length_q + offsets[:, 1]
            present = index >= 0
        elif grid_q and grid_k and len(grid_q) == len(grid_k) == 2:
            own = torch.stack([query // grid_q[1], query % grid_q[1]], dim=-1)
            high, low = (torch.tensor(x, device=device) for x in (grid_q, grid_k))
            at = (own * low // high)[:, None] + offsets
            at = torch.minimum(at.clamp(min=0), low - 1)
            index = (at[..., 0] * grid_k[1] + at[..., 1])[None]
        else:
            count_k = _count(given.key_mask, length_k, device)
            parent = query
            if self.pattern.cross:
                parent = query * count_k // _count(given.query_mask, length_q, device)
            at = parent[..., None] + offsets[:, 1]
            index = torch.minimum(at, count_k[..., None] - 1)
        index = index.clamp(min=0)
        if given.key_mask is not None:
            rows = index.expand(len(given.key_mask), -1, -1)
            present = present & given.key_mask.gather(1, rows.flatten(1)).view(rows.shape)
        return index, present


def _count(mask: Tensor | None, length: int, device: torch.device) -> Tensor:
    """(B or 1, 1) places up to the last valid token; at least one."""
    if mask is None:
        return torch.full((1, 1), max(1, length), device=device)
    places = torch.arange(1, length + 1, device=device)
    return (places * mask).amax(-1, keepdim=True).clamp(min=1)


def _softmax(logits: Tensor, present: Tensor) -> Tensor:
    """Weights of the offsets (B, H, Lq, n) that are present (B or 1, Lq or 1, n or 1); zeros in a
    row that has none.
    """
    hidden = ~present[:, None]
    weights = logits.masked_fill(hidden, -math.inf).softmax(-1)
    return weights.masked_fill(hidden, 0.0)
