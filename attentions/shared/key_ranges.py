"""Softmax attention over ranges of keys: each query reads a few runs of neighbouring keys.

Where runs begin and how long they are may differ by query and head, as routing decides it. The runs
of all queries are sorted by where they begin, and those that follow each other there are done
together: what such a tile reads is one run of keys, little longer than the runs in it, so that one
product of matrices does its scores. Beginnings that are sorted span each key once, so that tiles
read at most L keys more than the longest run of each. Nothing of size Lq x Lk is ever made.

Each run has a softmax of its own and says its log-sum-exp, with which those of several runs that do
not overlap become the softmax over all of them: `attend_to_both`, `union_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.block_tiles import in_units
from attentions.shared.first_order import first_derivatives_only
from cab import AttentionContext

_ROWS = 64
"""Runs in a tile"""
_UNIT = 16
"""Keys that are gathered together"""
_NUMBERS = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Weights that are alive at a time, or gathered numbers where these are more"""


@without_autocast
def range_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor,
    last: Tensor,
    key_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of queries over each of their runs of keys.

    Args:
        q: (B, H, Lq, D). k: (B, H, N, D). v: (B, H, N, Dv).
        first: (B, H, Lq, R) integers, the first key of each run.
        last: likewise, the one behind its last key, at most N; a run that does not reach beyond its
            first key is empty.
        key_mask: (B, N) bool, True where valid, or None. What is masked must be finite.

    Returns:
        (B, H, Lq, R, Dv), zeros for a run without keys, and the log-sum-exp of its scores
        q·k / sqrt(D), (B, H, Lq, R), -inf there; both in float32 at least.
    """
    plan = _Plan(q, k, first, last, key_mask)
    out: tuple[Tensor, Tensor] = _RangeSoftmax.apply(q, k, v, plan)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return out


def share_of_first(lse: Tensor, other: Tensor) -> Tensor:
    """Share of the weight of a softmax over two sets of keys that falls on the first, from the
    log-sum-exp of each; 1/2 where both are empty.
    """
    # An empty set is so light that its weight rounds to zero, but no infinity less another.
    light = torch.finfo(lse.dtype).min / 4
    return (lse.clamp(min=light) - other.clamp(min=light)).sigmoid()


def attend_to_both(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> Tensor:
    """The softmax attention over two sets of keys, from that over each: (.., Dv) and (..)."""
    return torch.lerp(other, out, share_of_first(lse, other_lse)[..., None])


def union_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor,
    last: Tensor,
    key_mask: Tensor | None = None,
    extra: Tensor | None = None,
) -> Tensor:
    """Softmax attention of queries over all of their runs together, which must not overlap.

    Args:
        q, k, v, first, last, key_mask: as in `range_attention`.
        extra: (B or 1, H, Lq or 1, 1) score of one more key whose value is zero, or None.

    Returns:
        (B, H, Lq, Dv) in float32 at least; zeros in a row that sees no key.
    """
    return union_of_runs(*range_attention(q, k, v, first, last, key_mask), extra)


def union_of_runs(out: Tensor, lse: Tensor, extra: Tensor | None = None) -> Tensor:
    """(.., Dv) softmax attention over several runs together from that over each: (.., R, Dv), and
    the log-sum-exp (.., R) of each; see `union_attention`.
    """
    runs = lse.shape[-1]
    if extra is None:
        blind = (lse == float("-inf")).all(-1, keepdim=True)
        shares = lse.masked_fill(blind, 0.0).softmax(-1)
    else:
        extra = extra.to(lse.dtype).expand(*lse.shape[:3], 1)
        shares = torch.cat([lse, extra], -1).softmax(-1)[..., :runs]
    return (shares[..., None, :] @ out)[..., 0, :]


@torch.no_grad()
def keys_in_runs(
    first: Tensor, last: Tensor, length: int, context: AttentionContext, like: Tensor
) -> Tensor:
    """(B, H) float64: pairs of a valid query and a valid key in its runs; a key that lies in
    several counts once.

    Args:
        first: as in `range_attention`.
        last: likewise.
        length: keys.
        context: the masks.
        like: the queries (B, H, Lq, D).
    """
    valid = torch.ones(like.shape[0], length, dtype=torch.bool, device=like.device)
    if context.key_mask is not None:
        valid = context.key_mask
    before = F.pad(valid.cumsum(-1), (1, 0))[:, None, None]
    shape = (*like.shape[:3], first.shape[-1])
    first, order = first.expand(shape).sort(dim=-1)
    last = last.expand(shape).gather(-1, order).cummax(-1).values
    # What a run begins with may lie in those that began before it.
    first = torch.maximum(first, F.pad(last[..., :-1], (1, 0)))
    begun, ended = (before.expand(*shape[:3], -1).gather(-1, x) for x in (first, last))
    read = (ended - begun).clamp(min=0).sum(-1)
    if context.query_mask is not None:
        read = read * context.query_mask[:, None]
    return read.sum(-1).double()


class _Plan:
    """Runs in order, and how they are cut up, for one call."""

    def __init__(
        self, q: Tensor, k: Tensor, first: Tensor, last: Tensor, key_mask: Tensor | None
    ) -> None:
        self.shape, length = q.shape, k.shape[2]
        pairs = q.shape[0] * q.shape[1]
        self.runs = first.shape[-1]
        self.units = -(-length // _UNIT)
        shape = (*q.shape[:3], self.runs)
        first, last = (x.expand(shape).reshape(pairs, -1) for x in (first, last))
        first = first.masked_fill(last <= first, length)  # an empty run comes last
        count = first.shape[1]
        self._rows = min(_ROWS, max(1, count))
        spare = -count % self._rows
        tiles = (count + spare) // self._rows
        first, order = first.sort(dim=-1, stable=True)
        last = last.gather(-1, order)
        own = torch.arange(pairs, device=q.device)[:, None]
        behind = own * (tiles * self._rows) + torch.arange(count, device=q.device)
        self.places = torch.empty_like(order).scatter_(-1, order, behind).flatten()
        """Of each run in the order of the tiles"""
        self.queries = F.pad(order // self.runs + own * q.shape[2], (0, spare)).flatten()
        """Of each run in that order"""
        first = F.pad(first, (0, spare), value=length).view(-1, self._rows)
        last = F.pad(last, (0, spare)).view(-1, self._rows)
        unit = first.amin(-1) // _UNIT
        width = torch.where(last > first, last, 0).amax(-1).add(_UNIT - 1) // _UNIT - unit
        width, self._tiles = width.clamp(min=0).sort(stable=True)
        self._unit = unit
        # Comparing them with columns is a good part of the work.
        self._first, self._last = first.int(), last.int()
        self._widths: list[int] = width.tolist()
        self._per_pair = tiles
        self._room = max(1, _NUMBERS.get(q.device.type, 1 << 26) // _UNIT)
        self._dim = q.shape[-1]
        self._hidden: Tensor | None = None
        if key_mask is not None and not bool(key_mask.all()):
            self._hidden = F.pad(~key_mask, (0, self.units * _UNIT - length), value=True)
            self._hidden = self._hidden.view(-1, _UNIT)

    @property
    def sorted_rows(self) -> int:
        """Runs of all pairs, and those that fill the last tiles up."""
        return self._first.numel()

    def tiles(self) -> Iterator[_Tiles]:
        """All of the work, tiles of about the same width together."""
        start = 0
        while start < len(self._widths):
            end, most = start + 1, self._widths[start]
            while end < len(self._widths):
                wider = self._widths[end]
                if (end + 1 - start) * wider * max(self._rows, self._dim) > self._room:
                    break
                end, most = end + 1, wider
            if most:
                yield self._of(self._tiles[start:end], most)
            start = end

    def _of(self, tiles: Tensor, width: int) -> _Tiles:
        unit = self._unit[tiles, None] + torch.arange(width, device=tiles.device)
        inner = torch.arange(_UNIT, device=tiles.device)
        column = (unit[..., None] * _UNIT + inner).flatten(1)[:, None].int()
        hidden = column < self._first[tiles, :, None]
        hidden |= column >= self._last[tiles, :, None]
        pair, unit = tiles // self._per_pair, unit.clamp(max=self.units - 1)
        if self._hidden is not None:
            row = pair // self.shape[1] * self.units
            masked = self._hidden.index_select(0, (unit + row[:, None]).flatten())
            hidden |= masked.view(len(tiles), 1, -1)
        return _Tiles(tiles, self._rows, (unit + (pair * self.units)[:, None]).flatten(), hidden)


@dataclass(frozen=True)
class _Tiles:
    """Some tiles, n, of P runs each, and the W keys that each of them reads."""

    tiles: Tensor
    rows: int
    units: Tensor
    hidden: Tensor
    """(n, P, W)"""

    def take(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, P, D) of what belongs to the sorted runs (rows, D)."""
        taken = x.view(-1, self.rows * x.shape[-1]).index_select(0, self.tiles)
        return taken.view(len(self.tiles), self.rows, -1).to(dtype)

    def put(self, out: Tensor, x: Tensor) -> None:
        """Write (n, P, D) to the sorted runs."""
        out.view(-1, self.rows * out.shape[-1]).index_copy_(0, self.tiles, x.flatten(1))

    def keys(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, W, D) of units of keys or values."""
        return (
            x.index_select(0, self.units).view(len(self.tiles), self.hidden.shape[2], -1).to(dtype)
        )

    def add(self, out: Tensor, x: Tensor) -> None:
        """Add (n, W, D) to the units."""
        out.index_add_(0, self.units, x.reshape(-1, out.shape[-1]))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """(n, P, W) scores of queries (n, P, D) and keys (n, W, D), -inf where hidden."""
        scores = q.new_empty(*q.shape[:2], k.shape[1])
        scores.baddbmm_(q, k.mT, beta=0.0, alpha=q.shape[-1] ** -0.5)
        return scores.masked_fill_(self.hidden, float("-inf"))


class _RangeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: _Plan) -> tuple[Tensor, Tensor]:
        dtype = torch.promote_types(q.dtype, torch.float32)
        queries = q.reshape(-1, q.shape[-1]).index_select(0, plan.queries)
        keys, values = in_units(k, _UNIT), in_units(v, _UNIT)
        out = q.new_zeros(plan.sorted_rows, v.shape[-1], dtype=dtype)
        lse = q.new_full((plan.sorted_rows, 1), float("-inf"), dtype=dtype)
        for tiles in plan.tiles():
            weights = tiles.scores(tiles.take(queries, dtype), tiles.keys(keys, dtype))
            top = weights.amax(-1, keepdim=True)
            top.masked_fill_(top == float("-inf"), 0.0)
            total = weights.sub_(top).exp_().sum(-1, keepdim=True)
            tiles.put(lse, total.log() + top)
            means = weights.bmm(tiles.keys(values, dtype))
            tiles.put(out, means.div_(total.masked_fill_(total == 0, 1.0)))
        shape = (*q.shape[:3], plan.runs)
        out = out.index_select(0, plan.places).view(*shape, -1)
        lse = lse.index_select(0, plan.places).view(shape)
        ctx.plan = plan
        ctx.save_for_backward(q, k, v, out, lse)
        return out, lse

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        plan: _Plan = ctx.plan
        dtype = lse.dtype
        queries = q.reshape(-1, q.shape[-1]).index_select(0, plan.queries)
        keys, values = in_units(k, _UNIT), in_units(v, _UNIT)

        def in_order(x: Tensor) -> Tensor:
            rows = x.new_zeros(plan.sorted_rows, x.shape[-1])
            return rows.index_copy_(0, plan.places, x.reshape(-1, x.shape[-1]))

        outer = in_order(grad)
        # Of a score: its weight, times what its value adds less the mean of that, and the weight
        # itself by which the log-sum-exp moves.
        mean = in_order(((grad * out).sum(-1) - grad_lse)[..., None])
        norm = in_order(lse[..., None].masked_fill(lse[..., None] == float("-inf"), float("inf")))
        grad_q = torch.zeros_like(queries, dtype=dtype)
        grad_k, grad_v = (torch.zeros_like(x, dtype=dtype) for x in (keys, values))
        for tiles in plan.tiles():
            own, columns = tiles.take(queries, dtype), tiles.keys(keys, dtype)
            above = tiles.take(outer, dtype)
            weights = tiles.scores(own, columns).sub_(tiles.take(norm, dtype)).exp_()
            tiles.add(grad_v, weights.mT.bmm(above))
            inner = above.bmm(tiles.keys(values, dtype).mT).sub_(tiles.take(mean, dtype))
            inner.mul_(weights).mul_(q.shape[-1] ** -0.5)
            tiles.put(grad_q, inner.bmm(columns))
            tiles.add(grad_k, inner.mT.bmm(own))
        own = grad_q.index_select(0, plan.places).view(*q.shape[:3], plan.runs, -1).sum(3)
        of_keys, of_values = (
            x.view(*like.shape[:2], -1, like.shape[-1])[:, :, : like.shape[2]].to(like.dtype)
            for x, like in ((grad_k, k), (grad_v, v))
        )
        return own.to(q.dtype), of_keys, of_values, None
