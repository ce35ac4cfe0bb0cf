"""How windowed attention is cut into tiles of blocks, and what the queries of each may see.

Queries are taken block by block. The windows of a block's queries lie in one span of keys, so the
spans are overlapping strided views of the keys. A tile has as many blocks as keep its weights in
the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_WEIGHTS = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Weights in a tile: what the second-level cache holds, or what fills the device."""


@dataclass(frozen=True)
class Summaries:
    """Keys and values that the queries see beside their window."""

    keys: Tensor
    """(B, H, S, D)"""
    values: Tensor
    """(B, H, S, Dv)"""
    mask: Tensor | None = None
    """(B, S) bool, True where valid"""
    chunk: int = 0
    """Tokens that a group of summaries stands for: query i sees groups 0 .. i // chunk - 1, those
    that ended before its own. 0: every query sees every summary."""
    rank: int = 1
    """Summaries in a group."""


@dataclass(frozen=True)
class Plan:
    """Windows, masks and how the work is cut up."""

    length: int
    before: int
    after: int
    segment: int
    start: int
    """Position of the first query."""
    key_mask: Tensor | None
    summaries: Summaries

    @cached_property
    def block(self) -> int:
        """Queries in a block. Small ones waste few products on keys outside the windows, large ones
        make better matrices of them.
        """
        if self.segment > 1:
            return self.segment * -(-12 // self.segment)
        return max(1, (self.before + self.after) // 64) * 16

    @cached_property
    def span(self) -> int:
        """Keys that a block of queries reads, rounded up to whole vectors."""
        return -(-(self.block + self.before + self.after) // 16) * 16

    @property
    def masked(self) -> bool:
        """Whether rows of the batch differ."""
        return self.key_mask is not None or self.summaries.mask is not None

    def keep(self, q: Tensor) -> bool:
        """Whether the backward pass finds the weights: where they are no wider than the queries."""
        return self.span + self.summaries.keys.shape[2] <= q.shape[-1]

    def tiles(self, q: Tensor) -> Iterator[Tile]:
        """All of the work; the queries of a pair in order."""
        batch, heads = q.shape[:2]
        columns = self.span + self.summaries.keys.shape[2]
        room = _WEIGHTS.get(q.device.type, 1 << 26) // columns
        pairs = max(1, room // (self.length + self.span))
        rows = max(1, pairs // heads)
        width = next(width for width in range(min(pairs, heads), 0, -1) if heads % width == 0)
        step = self.length if pairs > 1 else max(1, room // self.block) * self.block
        known: dict[int, Hidden] = {}
        for row in range(0, batch, rows):
            if self.masked:
                known = {}
            for head in range(0, heads, width):
                for first in range(0, self.length, step):
                    own = slice(row, min(row + rows, batch)), slice(head, head + width)
                    last = min(first + step, self.length)
                    yield Tile(self, *own, first, last, pairs > 1, known)


@dataclass(frozen=True)
class Hidden:
    """What the queries of a tile do not see: bool, (rows or 1, 1, n or 1, block or 1, ..)."""

    window: Tensor
    """(.., span)"""
    summaries: Tensor | None
    """(.., last - first)"""
    first: int
    """Summaries before it are seen by all."""
    last: int
    """Summaries from it on are seen by none."""
    rows: Tensor | None
    """(.., 1): queries that see nothing at all; None: there are none."""


@dataclass(frozen=True)
class Tile:
    """Queries ``first`` .. ``last`` - 1 of some pairs of row and head, cut into N blocks.

    Several pairs lie behind each other as if they were one sequence, with room for the last block's
    span between them.
    """

    plan: Plan
    rows: slice
    heads: slice
    first: int
    last: int
    packed: bool
    """Whether there may be several pairs."""
    known: dict[int, Hidden]

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """Rows, heads, blocks of a pair, queries in a block."""
        plan = self.plan
        blocks = -(-(self.last - self.first) // plan.block)
        if self.packed:
            blocks += -(-(plan.span - plan.block) // plan.block)
        rows, heads = (x.stop - x.start for x in (self.rows, self.heads))
        return rows, heads, blocks, plan.block

    @cached_property
    def reach(self) -> tuple[int, int]:
        """First key of the first span, and the first one after the last span; maybe outside."""
        first = self.first - self.plan.before
        return first, first + (self.shape[2] - 1) * self.plan.block + self.plan.span

    def blocks(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(N, block, D) of the queries, or of what else belongs to them; zeros after the last."""
        rows, heads, count, block = self.shape
        tokens, dim = self.last - self.first, x.shape[-1]
        if self.packed or tokens < count * block or x.dtype != dtype or x.stride(3) != 1:
            x = x[self.rows, self.heads, self.first : self.last]
            x = _placed(x, 0, count * block, 0, dtype)
            return x.view(rows * heads * count, block, dim)
        return self._view(x, self.first, block)

    def spans(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(N, span, D) of the keys or values; zeros outside."""
        rows, heads, count, block = self.shape
        span, (first, last) = self.plan.span, self.reach
        within = first >= 0 and last <= self.plan.length
        if within and not self.packed and x.dtype == dtype and x.stride(3) == 1:
            return self._view(x, first, span)
        inside = slice(max(first, 0), min(last, self.plan.length))
        x = x[self.rows, self.heads, inside]
        pitch = count * block if self.packed else last - first
        x = _placed(x, inside.start - first, pitch, span if self.packed else 0, dtype)
        return _windows(x, rows * heads * count, block, span)

    def _view(self, x: Tensor, first: int, width: int) -> Tensor:
        """(blocks, width, D) of a single pair, each block's from ``first`` on; not a copy."""
        row, head, token, _ = x.stride()
        offset = self.rows.start * row + self.heads.start * head + first * token
        return x.as_strided(
            (self.shape[2], width, x.shape[-1]),
            (self.shape[3] * token, token, 1),
            x.storage_offset() + offset,
        )

    def put(self, out: Tensor, x: Tensor) -> None:
        """Write (N, block, D) to the queries."""
        x = x.view(*self.shape[:2], -1, x.shape[-1])
        out[self.rows, self.heads, self.first : self.last] = x[:, :, : self.last - self.first]

    def fold(self, out: Tensor, x: Tensor, carry: Tensor | None) -> Tensor | None:
        """Write (N, span, D), summed where the spans overlap, to the keys.

        The sums at the end, which the pair's next tile adds to, are returned for its ``carry``.
        """
        rows, heads, _, block = self.shape
        blocks, span, dim = x.shape
        parts = -(-span // block)
        total = x.new_empty((blocks + parts - 1) * block, dim)
        total[blocks * block :].zero_()
        _windows(total, blocks, block, block).copy_(x[:, :block])
        for at in range(block, span, block):
            own = x[:, at : at + block]
            _windows(total[at:], blocks, block, own.shape[1]).add_(own)
        first, last = self.reach
        if self.packed:
            total = total[: blocks * block].view(rows, heads, -1, dim)
            out[self.rows, self.heads] = total[:, :, -first : self.plan.length - first]
            return None
        if carry is not None:
            total[: len(carry)] += carry
        done = self.plan.length if self.last == self.plan.length else self.last - self.plan.before
        start, end = max(first, 0), max(done, 0)
        out[self.rows.start, self.heads.start, start:end] = total[start - first : end - first]
        # A copy, so that the memory of the rest is free.
        return total[done - first : last - first].clone()

    def summaries(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(pairs, S, D) of the summaries that any query sees."""
        return x[self.rows, self.heads, : self.hidden.last].to(dtype).flatten(0, 1)

    def add(self, out: Tensor, x: Tensor) -> None:
        """Add (pairs, S, D) to those summaries."""
        out[self.rows, self.heads, : x.shape[1]] += x.view(*self.shape[:2], *x.shape[1:])

    def by_pair(self, x: Tensor) -> Tensor:
        """(N, block, ..) as (pairs, queries, ..)."""
        rows, heads, count, block = self.shape
        return x.view(rows * heads, count * block, x.shape[-1])

    @property
    def hidden(self) -> Hidden:
        """See there; the same for all heads."""
        if self.first not in self.known:
            self.known[self.first] = self._hidden()
        return self.known[self.first]

    def _hidden(self) -> Hidden:
        plan, (_, _, count, block) = self.plan, self.shape
        shared, device = plan.summaries, plan.summaries.keys.device
        number = torch.arange(count, device=device)[:, None, None]
        inner = torch.arange(block, device=device)[:, None]
        ahead = torch.arange(plan.span, device=device) - plan.before
        key = self.first + number * block + ahead
        ahead = ahead - inner // plan.segment * plan.segment
        window = ((ahead < -plan.before) | (ahead >= plan.segment + plan.after))[None, None, None]
        # Queries after the last one are zeros, and harmless if they see everything.
        position = self.first + number * block + inner
        real = position < self.last
        if plan.key_mask is not None:
            window = window | ~plan.key_mask[self.rows, None][..., key.clamp(0, plan.length - 1)]
        if self.reach[0] < 0 or self.reach[1] > plan.length or plan.key_mask is not None:
            window = (window | (key < 0) | (key >= plan.length)) & real

        first, last, hidden = 0, shared.keys.shape[2], None
        if shared.chunk:
            ended = (plan.start + position) // shared.chunk * shared.rank
            last = min(last, (plan.start + self.last - 1) // shared.chunk * shared.rank)
            if not plan.masked:
                first = min(last, (plan.start + self.first) // shared.chunk * shared.rank)
            hidden = ((torch.arange(first, last, device=device) >= ended) & real)[None, None]
        if shared.mask is not None:
            off = ~shared.mask[self.rows, None, None, None, :last]
            hidden = off if hidden is None else hidden | off
        empty = None
        if plan.masked:
            empty = window.all(-1, keepdim=True)
            if last:
                empty = empty & (hidden is not None and hidden.all(-1, keepdim=True))
        return Hidden(window, hidden, first, last, empty)


def _placed(x: Tensor, offset: int, pitch: int, spare: int, dtype: torch.dtype) -> Tensor:
    """Sequences (rows, heads, L, D) with zeros around each, one behind the other.

    (rows heads pitch + spare, D); a sequence starts ``offset`` into its part of ``pitch``.
    """
    rows, heads, length, dim = x.shape
    out = x.new_zeros(rows * heads * pitch + spare, dim, dtype=dtype)
    out.as_strided(
        (rows, heads, length, dim), (heads * pitch * dim, pitch * dim, dim, 1), offset * dim
    ).copy_(x)
    return out


def _windows(x: Tensor, count: int, step: int, width: int) -> Tensor:
    """(count, width, D) views of a contiguous (tokens, D), ``step`` tokens apart."""
    dim = x.shape[-1]
    return x.as_strided((count, width, dim), (step * dim, dim, 1), x.storage_offset())
