"""Windows on a grid of tokens, pushed inward at the borders, as lists of keys for tiles of queries.

A tile is a small rectangle of places, in all frames at once. The windows of its queries lie in a
rectangle that is little larger than one window; the tile reads all of it, and what lies outside a
query's own window is masked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.block_tiles import BlockLists

_SIDE = 4
"""Least side of a tile: matrices of fewer rows are slow, larger tiles read more that they mask."""


class GridWindows:
    """Which keys the queries of a grid (frames, height, width), row-major, see in all frames.

    Attributes:
        lists: for `block_sparse_attention` of tiled queries and keys as they are.
    """

    def __init__(
        self, grid: tuple[int, int, int], radii: tuple[int, int], device: torch.device
    ) -> None:
        """``radii``: places on each side of a query along height and width."""
        frames, height, width = grid
        rows, columns = (
            _Side(size, radius, device) for size, radius in ((height, radii[0]), (width, radii[1]))
        )
        inner = torch.arange(frames, device=device) * height * width
        # (tiles along height, tiles along width, frames, rows of a tile, columns of a tile)
        y, x = rows.queries[:, None, None, :, None], columns.queries[None, :, None, None, :]
        real = (y < height) & (x < width)
        tokens = torch.where(real, inner[:, None, None] + y * width + x, frames * height * width)
        self._order = tokens.flatten()
        self._places = torch.empty(frames * height * width + 1, dtype=torch.long, device=device)
        self._places[self._order] = torch.arange(len(self._order), device=device)
        y, x = rows.keys[:, None, None, :, None], columns.keys[None, :, None, None, :]
        units = (inner[:, None, None] + y * width + x).flatten(2).flatten(0, 1)
        from_y = rows.first[rows.queries.clamp(max=height - 1)][:, None, None, :, None]
        from_x = columns.first[columns.queries.clamp(max=width - 1)][None, :, None, None, :]
        from_y, from_x = (z.expand_as(tokens).flatten() for z in (from_y, from_x))

        def sees(query: Tensor, key: Tensor) -> Tensor:
            place = key % (height * width)
            below = place // width - from_y[query]
            beside = place % width - from_x[query]
            inside = (below >= 0) & (below < rows.window)
            return inside & (beside >= 0) & (beside < columns.window)

        count = units.shape[-1]
        block = len(self._order) // len(units)
        self.lists = BlockLists(units[None, None], block, 1, partial=count, sees=sees)

    def tiled(self, x: Tensor) -> Tensor:
        """(B, H, L', D) of tokens (B, H, L, D) by tiles, zeros where a tile is not full."""
        return F.pad(x, (0, 0, 0, 1)).index_select(2, self._order)

    def untiled(self, x: Tensor) -> Tensor:
        """(B, H, L, D) of (B, H, L', D)."""
        return x.index_select(2, self._places[:-1])


class _Side:
    """One side of the grid, cut into tiles.

    Attributes:
        window: keys that a query sees.
        first: (size,) the first of them.
        queries: (tiles, tile) places; beyond the size where the last tile is not full.
        keys: (tiles, n) places that a tile reads.
    """

    def __init__(self, size: int, radius: int, device: torch.device) -> None:
        tile = min(size, max(_SIDE, radius // 2))
        self.window = min(size, 2 * radius + 1)
        place = torch.arange(size, device=device)
        self.first = (place - radius).clamp(0, size - self.window)
        start = torch.arange(0, size, tile, device=device)
        self.queries = start[:, None] + torch.arange(tile, device=device)
        count = min(size, tile - 1 + self.window)
        begin = self.first[start].clamp(max=size - count)
        self.keys = begin[:, None] + torch.arange(count, device=device)
