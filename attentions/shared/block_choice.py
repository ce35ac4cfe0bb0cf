"""The blocks of keys with the largest scores, chosen by each query for itself.

Queries are looked at some at a time, so that the scores of all queries and blocks are never in
memory together. No gradient goes through a choice.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

_SCORES = 1 << 18
"""Scores that are alive at a time"""

Choice = Callable[[slice], Tensor]
"""From a range of queries to bool, broadcastable to (B, H or 1, n, blocks): which they choose
from"""


def block_means(x: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Means of the valid tokens of each block, and whether a block has one.

    Args:
        x: (B, H, L, D) tokens, finite where masked.
        mask: (B, L) bool, True where valid, or None.
        size: tokens in a block; the last block may have fewer.

    Returns:
        (B, H, blocks, D) in float32 at least, zeros for a block without a valid token; and (B or 1,
        blocks) bool.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    length = x.shape[2]
    valid = torch.ones(1, length, dtype=torch.bool, device=x.device) if mask is None else mask
    spare = -length % size
    valid = F.pad(valid, (0, spare)).unflatten(1, (-1, size))
    tokens = F.pad(x.to(dtype), (0, 0, 0, spare)).unflatten(2, (-1, size))
    if mask is not None:
        tokens = tokens.masked_fill(~valid[:, None, ..., None], 0.0)
    counts = valid.sum(-1)
    means = tokens.sum(3) / counts.clamp(min=1)[:, None, :, None]
    return means, counts > 0


@torch.no_grad()
def best_blocks(q: Tensor, means: Tensor, choice: Choice, count: int) -> Tensor:
    """The blocks whose means have the largest products with each query; of equal ones the first.

    Args:
        q: (B, H, Lq, D).
        means: (B, H, blocks, D) in float32 at least.
        choice: the blocks that may be chosen.
        count: how many, at most.

    Returns:
        (B, H, Lq, min(count, blocks)) numbers of blocks, the best first; -1 where there are fewer.
    """
    count = max(0, min(count, means.shape[2]))
    found = []
    for rows in rows_at_a_time(q, means.shape[2]):
        scores = q[:, :, rows].to(means.dtype) @ means.mT
        found.append(ranked(scores.masked_fill(~choice(rows), float("-inf")), count))
    return torch.cat(found, 2)


def ranked(scores: Tensor, count: int) -> Tensor:
    """(.., count) numbers of the largest of scores (.., blocks), the best first and of equal ones
    the first; -1 in the place of what has a score of -inf.
    """
    if count == 0:
        return scores.new_zeros(*scores.shape[:-1], 0, dtype=torch.long)
    best = scores.sort(dim=-1, descending=True, stable=True)
    lacking = best.values[..., :count] == float("-inf")
    return best.indices[..., :count].masked_fill(lacking, -1)


def rows_at_a_time(q: Tensor, columns: int) -> list[slice]:
    """Ranges of queries whose scores of so many columns may be in memory together."""
    step = max(1, _SCORES // max(1, q.shape[0] * q.shape[1] * columns))
    return [slice(start, start + step) for start in range(0, max(1, q.shape[2]), step)]
