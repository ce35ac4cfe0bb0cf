"""What the attention maps of a model's slots are like (`cab.maps`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cab import AttentionContext
from cab.maps import map_of
from runners.analysis.calls import Call

MOST_CALLS = 128
"""Columns come in groups as wide as the values; a map that takes more calls is not looked at"""

SEQUENCES = 2
"""Of a batch, for their maps"""


@torch.no_grad()
def attention_map(call: Call) -> Tensor | None:
    """(B, H, Lq, Lk) map of the first sequences of a call, or None where the mechanism has none."""
    q, k, v = (x[:SEQUENCES] for x in (call.q, call.k, call.v))
    width, length = v.shape[-1], k.shape[-2]
    if math.ceil(length / width) > MOST_CALLS:
        return None
    context = _first(call)
    return map_of(lambda values: call.module(q, k, values, context), v)


def map_statistics(call: Call, found: Tensor) -> dict[str, float]:
    """Means over heads and queries that see a key, of a map (B, H, Lq, Lk).

    ``attention_negative_mass``: sum of the negative weights' sizes. Where there are next to none
    and rows sum to one, also ``attention_entropy`` in nats, and ``attention_distance``, the mean
    of sum_j A_ij |p_i - p_j| with positions between 0 and 1 (on a grid: in the unit square).
    """
    rows = _rows(call, found)
    sums = found.sum(-1)
    rows &= sums.abs() > 0.5  # a row that sees no key is zero
    if not rows.any():
        return {}
    negative = found.clamp(max=0).neg().sum(-1)
    statistics = {"attention_negative_mass": negative[rows].mean().item()}
    if negative[rows].max() > 0.01 or (sums[rows] - 1).abs().max() > 0.02:
        return statistics
    weights = found.clamp(min=0)
    entropy = torch.special.entr(weights).sum(-1)
    distance = (weights * _distances(call, found)).sum(-1)
    statistics["attention_entropy"] = entropy[rows].mean().item()
    statistics["attention_distance"] = distance[rows].mean().item()
    return statistics


def mapped(calls: Sequence[Call]) -> list[tuple[Call, Tensor]]:
    """The calls of slots that have a map, each with it."""
    return [(call, found) for call in calls if (found := attention_map(call)) is not None]


def mean_statistics(maps: Sequence[tuple[Call, Tensor]]) -> Mapping[str, float]:
    """Of all slots that have a map; a statistic that only some of them have is left out."""
    each = [map_statistics(call, found) for call, found in maps]
    if not each:
        return {}
    shared = [name for name in each[0] if all(name in one for one in each)]
    return {name: sum(one[name] for one in each) / len(each) for name in shared}


def _rows(call: Call, found: Tensor) -> Tensor:
    """(B, H, Lq) bool: the rows of valid queries."""
    rows = torch.ones(found.shape[:-1], dtype=torch.bool, device=found.device)
    if call.context is not None and call.context.query_mask is not None:
        rows &= call.context.query_mask[:SEQUENCES, None, :]
    return rows


def _distances(call: Call, found: Tensor) -> Tensor:
    """(Lq, Lk) distances between places, each sequence stretched to 0..1."""
    context = call.context
    grids = (None, None) if context is None else (context.query_grid, context.key_grid)
    if not call.module.pattern.cross:
        grids = (grids[0], grids[0])
    query = _places(found.shape[-2], grids[0], found.device)
    key = _places(found.shape[-1], grids[1], found.device)
    if query.shape[-1] != key.shape[-1]:
        query, key = (_places(n, None, found.device) for n in found.shape[-2:])
    return torch.cdist(query, key)


def _places(length: int, grid: tuple[int, ...] | None, device: torch.device) -> Tensor:
    """(length, axes) coordinates in 0..1."""
    shape = grid if grid is not None and math.prod(grid) == length else (length,)
    axes = [torch.linspace(0, 1, n, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(length, len(shape))


def _first(call: Call) -> AttentionContext | None:
    """The context of the first sequences."""
    if call.context is None:
        return None
    kept: dict[str, Any] = {
        name: value[:SEQUENCES] if isinstance(value, Tensor) and value.ndim >= 2 else value
        for name, value in vars(call.context).items()
    }
    return type(call.context)(**kept)
