"""The keys that stand next to a query on an axis: by times, positions or places in the sequence."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Neighbours(NamedTuple):
    """Of every query, (B or 1, Lq, n)."""

    keys: Tensor
    """Which keys"""
    offset: Tensor
    """Their time less the query's"""
    present: Tensor
    """False where there are fewer than n"""


def nearest(query: Tensor, key: Tensor, key_mask: Tensor | None, count: int) -> Neighbours:
    """The n valid keys that are nearest to each query, the nearest first.

    Keys are sorted, and of each query 2 n of them looked at: O(L ln L + L n). What is equally far
    is taken in turns from below and from above, the closest in the sorted order first; below are
    times that are smaller than the query's, and equal times are in the order of the sequence.

    Args:
        query: (B or 1, Lq) times.
        key: (B or 1, Lk) times, in the same dtype.
        key_mask: (B, Lk) bool, True where valid, or None.
        count: n, at least one; no more than there are keys.
    """
    valid = torch.ones_like(key, dtype=torch.bool) if key_mask is None else key_mask
    rows = max(len(query), len(key), len(valid))
    query, key, valid = (x.expand(rows, -1) for x in (query, key, valid))
    if key.shape[-1] == 0:
        none = query.new_zeros(rows, query.shape[-1], 0)
        return Neighbours(none.long(), none, none.bool())
    count = min(count, key.shape[-1])
    times, order = key.masked_fill(~valid, torch.inf).sort(dim=-1, stable=True)
    above = torch.searchsorted(times, query.contiguous())
    step = torch.arange(count, device=key.device)
    ranks = above[..., None] + torch.stack([-1 - step, step], dim=-1).flatten()
    inside = (ranks >= 0) & (ranks < valid.sum(-1)[:, None, None])
    ranks = ranks.clamp(0, key.shape[-1] - 1).flatten(1)
    offset = times.gather(1, ranks).view(inside.shape) - query[..., None]
    distance = offset.abs().masked_fill(~inside, torch.inf)
    distance, first = distance.sort(dim=-1, stable=True)
    first, distance = first[..., :count], distance[..., :count]
    index = order.gather(1, ranks).view(inside.shape).gather(-1, first)
    present = distance < torch.inf
    return Neighbours(index, offset.gather(-1, first).masked_fill(~present, 0.0), present)


def latest(length_q: int, times: Tensor, key_mask: Tensor | None, count: int) -> Neighbours:
    """The last n valid keys up to each query's own, the last first; the queries are the last of
    the keys (times (B or 1, Lk)).
    """
    valid = torch.ones_like(times, dtype=torch.bool) if key_mask is None else key_mask
    rows, length = max(len(times), len(valid)), times.shape[-1]
    times, valid = times.expand(rows, -1), valid.expand(rows, -1)
    count = min(count, max(1, length))
    # Places of the valid keys in order, those of others behind them.
    order = (~valid).long().sort(dim=-1, stable=True).indices
    seen = valid.cumsum(-1)[:, length - length_q :]
    ranks = seen[..., None] - 1 - torch.arange(count, device=times.device)
    present = ranks >= 0
    index = order.gather(1, ranks.clamp(min=0).flatten(1)).view(ranks.shape)
    offset = times.gather(1, index.flatten(1)).view(ranks.shape)
    offset = offset - times[:, length - length_q :, None]
    return Neighbours(index, offset.masked_fill(~present, 0.0), present)


def nearest_mask(query: Tensor, key: Tensor, key_mask: Tensor | None, count: int) -> Tensor:
    """The definition of `nearest`: (B or 1, Lq, Lk) bool, from all pairs."""
    valid = torch.ones_like(key, dtype=torch.bool) if key_mask is None else key_mask
    query, key, valid = torch.broadcast_tensors(query[:, :, None], key[:, None], valid[:, None])
    distance = (key - query).abs().masked_fill(~valid, torch.inf)
    below = valid & (key < query)
    # Where each key stands among all, and how far from the border between below and above.
    rank = key.masked_fill(~valid, torch.inf).argsort(dim=-1, stable=True).argsort(-1)
    border = below.sum(-1, keepdim=True)
    turn = torch.where(below, 2 * (border - 1 - rank), 2 * (rank - border) + 1)
    by_turn = turn.argsort(dim=-1, stable=True)
    by_distance = distance.gather(-1, by_turn).argsort(dim=-1, stable=True)
    chosen = by_turn.gather(-1, by_distance)[..., :count]
    return torch.zeros_like(valid).scatter(-1, chosen, True) & valid
