"""Inward sliding window: a window on the grid of tokens that borders push inward (FreeSwim).

FreeSwim (2025, arXiv 2511.14712) has videos of T frames of H x W tokens. A query at (y, x) attends
to all frames, and in each to

    y' in [y - dh - u, y + dh + b],   u = max(dh + y - H + 1, 0),   b = max(dh - y, 0)
    x' in [x - dw - l, x + dw + r],   l = max(dw + x - W + 1, 0),   r = max(dw - x, 0)

so that at the borders it sees (2 dh + 1) (2 dw + 1) places of each frame too, as in training. A
frame that is no wider than the window is seen whole along that side. Tokens that lie on no grid are
a frame of one row, with radius d; that is neighbourhood attention with a window of 2 d + 1.

The paper takes a model that was trained at a lower resolution and makes dh and dw half of that
resolution, without further training; here the window is there from the beginning of training. Its
factor of the logits, sqrt(ln N / ln N_train) with N places in a frame now and in training, is the
option ``train_tokens``. Its second stream of full attention, whose cross attention replaces that of
the window's, is wiring of a model's blocks and not here.

The grid is that of the context. A masked token keeps its place on it; on a sequence, padding behind
the last valid token moves no window.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.grid_windows import GridWindows
from attentions.shared.inward_windows import inward_window_attention, window_bounds
from attentions.shared.masks import hidden_as_bias, valid_lengths, visible
from attentions.shared.positions import at_positions
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

_NO_CROSS = "queries and keys of two sequences lie on no common grid to centre a window on"


@register_attention(
    AttentionInfo(
        id="inward-swa",
        family=Family.WINDOWED,
        title="Inward sliding window (FreeSwim)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over the (2 dh + 1) (2 dw + 1) places "
        "around i in every frame, the window moved inward at borders",
        patterns={Pattern.NONCAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.CAUSAL_SELF: "at the left border the window reaches into the future; without "
            "that it is `local`",
            Pattern.NONCAUSAL_CROSS: _NO_CROSS,
            Pattern.CAUSAL_CROSS: _NO_CROSS,
        },
        time="L w D",
        memory="L w",
        paper="FreeSwim: Revisiting Sliding-Window Attention Mechanisms for Training-Free "
        "Ultra-High-Resolution Video Generation",
        year=2025,
        url="https://arxiv.org/abs/2511.14712",
        options=(
            Option("radius", 15, "d: places on each side in a sequence", least=0),
            Option("radius_height", 3, "dh: rows on each side on a grid", least=0),
            Option("radius_width", 3, "dw: columns on each side on a grid", least=0),
            Option("train_tokens", 0, "N_train: places in a frame in training; 0: none", least=0),
        ),
        presets={"freeswim": {"radius_height": 15, "radius_width": 26}},
    )
)
class InwardSlidingWindow(PartialReads):
    """Softmax over a window of the grid that lies inside it."""

    def __init__(
        self,
        spec: AttentionSpec,
        radius: int = 15,
        radius_height: int = 3,
        radius_width: int = 3,
        train_tokens: int = 0,
    ) -> None:
        super().__init__(spec)
        if train_tokens == 1:
            raise ValueError("train_tokens must be at least 2: ln 1 is zero")
        self.radius, self.radii = radius, (radius_height, radius_width)
        self.train_tokens = train_tokens

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            ValueError: the grid of the context does not hold the tokens, or has no one to three
                sides.
        """
        mask = None if context is None else context.key_mask
        q = self._scaled(q, context)
        windows = self._windows(q, context)
        if windows is not None:
            bias = hidden_as_bias(mask, q)
            out = block_sparse_attention(windows.tiled(q), k, v, windows.lists, bias=bias)
            return windows.untiled(out)
        lengths = None if mask is None else valid_lengths(mask)
        return inward_window_attention(q, k, v, mask, lengths, left=self.radius, right=self.radius)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under a mask, each border's excess written out."""
        length = k.shape[-2]
        mask = visible(self.pattern, length, length, context, q.device)
        grid = _grid_of(context, length)
        if grid is None:
            place = torch.arange(length, device=q.device)
            end = torch.full((q.shape[0],), length, device=q.device)
            if context is not None and context.key_mask is not None:
                end = (context.key_mask * (place + 1)).amax(-1)
            sees = _along(place, end[:, None, None], self.radius) & (
                place[:, None] < end[:, None, None]
            )
            sees = sees[:, None]
        else:
            _, height, width = grid
            place = torch.arange(length, device=q.device) % (height * width)
            of = torch.tensor(height, device=q.device), torch.tensor(width, device=q.device)
            sees = _along(place // width, of[0], self.radii[0])
            sees = sees & _along(place % width, of[1], self.radii[1])
        q = self._scaled(q, context)
        return exact_softmax_attention(q, k, v, sees if mask is None else sees & mask)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        length, keys, queries = k.shape[-2], context.key_mask, context.query_mask
        windows = self._windows(q, context)
        if windows is not None:
            valid = q.new_ones(q.shape[0], length, dtype=torch.bool) if queries is None else queries
            tiled = windows.tiled(valid[:, None, :, None])[:, 0, :, 0]
            shape = (*q.shape[:2], tiled.shape[1], q.shape[3])
            bias = hidden_as_bias(keys, q)
            return columns_read(windows.lists, shape, length, bias=bias, query_mask=tiled)
        keys = q.new_ones(q.shape[0], length, dtype=torch.bool) if keys is None else keys
        start, end = window_bounds(valid_lengths(keys), length, left=self.radius, right=self.radius)
        before = F.pad(keys.double().cumsum(-1), (1, 0))
        read = before.gather(1, end) - before.gather(1, start)
        read = read if queries is None else read * queries
        return read.sum(-1, keepdim=True).expand(-1, q.shape[1])

    def flops(self, shape: AttentionShape) -> float:
        """2 B H L (D + Dv) times the width of the window of a sequence."""
        width = min(2 * self.radius + 1, shape.length_k)
        rows = shape.batch * shape.heads * shape.length_q
        return 2.0 * rows * width * (shape.head_dim + shape.value_dim)

    def _scaled(self, q: Tensor, context: AttentionContext | None) -> Tensor:
        """Queries with the factor of the logits."""
        if not self.train_tokens:
            return q
        grid = _grid_of(context, q.shape[-2])
        tokens = q.new_full((1,), q.shape[-2] if grid is None else grid[1] * grid[2])
        if grid is None and context is not None and context.key_mask is not None:
            tokens = valid_lengths(context.key_mask).clamp(min=1)
        dtype = torch.promote_types(q.dtype, torch.float32)
        factor = (tokens.to(dtype).log() / math.log(self.train_tokens)).sqrt()
        return (q.to(dtype) * factor[:, None, None, None]).to(q.dtype)

    def _windows(self, q: Tensor, context: AttentionContext | None) -> GridWindows | None:
        """The windows on the grid; None for a sequence."""
        grid = _grid_of(context, q.shape[-2])
        return None if grid is None else GridWindows(grid, self.radii, q.device)


def _along(place: Tensor, size: Tensor, radius: int) -> Tensor:
    """(.., L, L) bool: whether the second place lies in the first one's window along one side."""
    before = radius + (radius + place - size + 1).clamp(min=0)
    after = radius + (radius - place).clamp(min=0)
    if before.ndim > 1:
        before, after = before.mT, after[:, None]
    else:
        before, after = before[:, None], after[:, None]
    distance = place - place[:, None]
    return (distance >= -before) & (distance <= after)


def _grid_of(context: AttentionContext | None, tokens: int) -> tuple[int, int, int] | None:
    """Frames, height and width; None where the tokens lie on no grid."""
    grid = None if context is None else context.query_grid
    if grid is None or len(grid) == 1:
        return None
    if len(grid) > 3 or math.prod(grid) != tokens:
        raise ValueError(f"a grid of {' x '.join(map(str, grid))} does not hold {tokens} tokens")
    frames, height, width = (1, *grid) if len(grid) == 2 else grid
    return frames, height, width
