"""Lists of the key blocks that blocks of queries read, and how they are cut into tiles.

Blocks of all rows and heads are taken in the order of how many units they read, so that the blocks
of a tile read about as many. A tile has as many blocks as keep its weights in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_NUMBERS = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Weights in a tile, or gathered numbers where these are more: what the second-level cache holds,
or what fills the device."""

Sees = Callable[[Tensor, Tensor], Tensor]
"""From positions of queries (n, block, 1) and columns (n, 1, x) to bool (n, block, x): whether the
query sees the column."""


@dataclass(frozen=True)
class BlockLists:
    """Which units of columns the queries of each block read."""

    units: Tensor
    """(B or 1, H or 1, blocks, C) integers, distinct in a row; -1 where a list is shorter than C.
    Those come first."""
    block: int
    """Queries in a block."""
    unit: int
    """Columns in a unit."""
    partial: int = 0
    """Units at the end of each list that not every query of the block sees in full."""
    sees: Sees | None = None
    """What a query sees of those."""
    first: int = 0
    """Position of the first query of the first block."""


def lists_of(kept: Tensor) -> Tensor:
    """Lists, ascending (.., blocks, C), of the units that are True in (.., blocks, units)."""
    counts = kept.sum(-1)
    most = int(counts.amax()) if kept.numel() else 0
    rows, units = kept.flatten(0, -2).nonzero().unbind(-1)
    counts = counts.flatten()
    # Behind each other in a row, the last one at its end.
    ends = counts.cumsum(0)
    places = torch.arange(len(rows), device=kept.device) - ends[rows] + most
    lists = kept.new_full((len(counts), most), -1, dtype=torch.long)
    lists[rows, places] = units
    return lists.view(*kept.shape[:-1], most)


def in_units(x: Tensor, unit: int) -> Tensor:
    """(B H units, unit D) of (B, H, N, D), with zeros behind the last; a view where it can be."""
    spare = -x.shape[2] % unit
    if spare:
        x = F.pad(x, (0, 0, 0, spare))
    return x.reshape(-1, unit * x.shape[-1])


class BlockPlan:
    """Lists, masks and how the work is cut up, for one call.

    Attributes:
        block: queries in a block.
        unit: columns in a unit.
    """

    def __init__(
        self, lists: BlockLists, shape: torch.Size, columns: int, bias: Tensor | None
    ) -> None:
        """``shape`` is that of the queries (B, H, Lq, D), ``columns`` N, ``bias`` (B or 1, N)."""
        batch, heads, dim = shape[0], shape[1], shape[-1]
        self.lists, self.block, self.unit = lists, lists.block, lists.unit
        count, device = lists.units.shape[2], lists.units.device
        self._units = lists.units.expand(batch, heads, -1, -1).flatten(0, 2)
        counts = (self._units >= 0).sum(-1)
        self._order: Tensor | None = None
        self._counts: list[int] = counts.tolist()
        self._blocks = torch.arange(batch * heads * count, device=device)
        if len(set(self._counts)) > 1:
            counts, self._order = counts.sort(stable=True)
            self._counts = counts.tolist()
            self._units, self._blocks = self._units[self._order], self._order
        pair = self._blocks // count
        per_pair = -(-columns // self.unit)
        self._absent = self._units < 0
        units = self._units.masked_fill(self._absent, 0)
        self._index = units + pair[:, None] * per_pair
        self._bias: Tensor | None = None
        if bias is not None:
            self._bias = F.pad(bias, (0, -columns % self.unit), value=float("-inf"))
            self._bias = self._bias.reshape(-1, self.unit)
            row = pair // heads if bias.shape[0] > 1 else torch.zeros_like(pair)
            self._bias_index = units + row[:, None] * per_pair
        elif columns % self.unit:
            # What fills the last unit up is not there.
            self._bias = torch.zeros(per_pair * self.unit, device=device)
            self._bias[columns:] = float("-inf")
            self._bias, self._bias_index = self._bias.view(-1, self.unit), units
        self._masked = bias is not None and bool((bias == float("-inf")).any())
        self._room = max(
            1, _NUMBERS.get(device.type, 1 << 26) // (self.unit * max(self.block, dim))
        )

    def tiles(self) -> Iterator[Tile]:
        """All of the work."""
        total, start = len(self._counts), 0
        while start < total:
            end = min(total, start + max(1, self._room // max(1, self._counts[start])))
            # Later blocks read more.
            most = max(1, self._room // max(1, self._counts[end - 1]))
            end = min(end, start + most)
            yield Tile(self, start, end)
            start = end


class Tile:
    """Some blocks of queries, n, and the ``width`` columns that each of them reads."""

    def __init__(self, plan: BlockPlan, start: int, end: int) -> None:
        self._plan, self._own = plan, slice(start, end)
        self.count = end - start
        self._units = plan._counts[end - 1]
        self._lead = self._units - plan._counts[start]
        self.width = self._units * plan.unit
        self._listed = slice(plan._units.shape[1] - self._units, None)
        self._index = plan._index[self._own, self._listed].flatten()

    @property
    def blocks(self) -> Tensor:
        """(n,) numbers of the blocks: those of a pair of row and head follow each other."""
        return self._plan._blocks[self._own]

    @property
    def may_be_empty(self) -> bool:
        """Whether some query might see nothing."""
        return self._plan._masked or self._units == self._lead

    def of_blocks(self, x: Tensor) -> Tensor:
        """(n, ..) of what belongs to the blocks of queries (B H blocks, ..)."""
        order = self._plan._order
        return x[self._own] if order is None else x.index_select(0, order[self._own])

    def queries(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, block, D) of (B H blocks, block D)."""
        return self.of_blocks(x).view(self.count, self._plan.block, -1).to(dtype)

    def columns(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, width, D) of (B H units, unit D)."""
        dim = x.shape[-1] // self._plan.unit
        return x.index_select(0, self._index).view(self.count, self.width, dim).to(dtype)

    def put(self, out: Tensor, x: Tensor) -> None:
        """Write (n, block, D) to (B H blocks, block D)."""
        order = self._plan._order
        flat = x.reshape(self.count, -1).to(out.dtype)
        if order is None:
            out[self._own] = flat
        else:
            out.index_copy_(0, order[self._own], flat)

    def add(self, out: Tensor, x: Tensor) -> None:
        """Add (n, width, D) to (B H units, unit D)."""
        out.index_add_(0, self._index, x.reshape(-1, out.shape[-1]))

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """(n, 1, width) of the columns; None: nothing is to be added."""
        plan = self._plan
        if plan._bias is None:
            return None
        index = plan._bias_index[self._own, self._listed].flatten()
        return plan._bias.index_select(0, index).view(self.count, 1, self.width).to(dtype)

    def hide_(self, scores: Tensor) -> Tensor:
        """Scores (n, block, width) with -inf for what a query does not see beside the bias."""
        plan, lists = self._plan, self._plan.lists
        if self._lead:
            absent = plan._absent[self._own, self._listed][:, : self._lead]
            absent = absent.repeat_interleave(plan.unit, dim=-1)[:, None]
            scores[..., : absent.shape[-1]].masked_fill_(absent, float("-inf"))
        partial = min(lists.partial, self._units)
        if partial and lists.sees is not None:
            units = plan._units[self._own, self._listed][:, self._units - partial :]
            inner = torch.arange(plan.unit, device=units.device)
            column = (units[..., None] * plan.unit + inner).flatten(1)[:, None]
            number = self.blocks % lists.units.shape[2]
            place = number[:, None] * plan.block + torch.arange(plan.block, device=units.device)
            seen = lists.sees(place[..., None] + lists.first, column)
            scores[..., scores.shape[-1] - column.shape[-1] :].masked_fill_(~seen, float("-inf"))
        return scores
