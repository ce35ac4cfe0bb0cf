"""Keys and values at several resolutions: means over 1, 2, 4 and 8 consecutive tokens.

A mean over n valid tokens counts as n of them: ln n is added to its score. Columns of all levels
stand behind each other, the coarsest first, so that lists in ascending order end with single
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.block_importance import Blocks

LEVELS = (8, 4, 2, 1)
"""Tokens that a column stands for, in the order of the columns"""
COARSEST = LEVELS[0]


def pyramid(blocks: Blocks) -> Tensor:
    """(B, H, N, D) columns of all levels; zeros where no token is valid."""
    sums, counts = blocks.tokens.flatten(2, 3), blocks.valid.flatten(1).to(blocks.tokens.dtype)
    levels = []
    for level in reversed(LEVELS):
        if level > 1:
            sums = sums[:, :, ::2] + sums[:, :, 1::2]
            counts = counts[:, ::2] + counts[:, 1::2]
        levels.append(sums / counts.clamp(min=1)[:, None, :, None] if level > 1 else sums)
    return torch.cat(levels[::-1], dim=2)


def pyramid_bias(blocks: Blocks) -> Tensor:
    """(B or 1, N) ln of the valid tokens of each column, -inf where there is none."""
    counts = blocks.valid.flatten(1).to(blocks.tokens.dtype)
    return torch.cat([counts.unflatten(1, (-1, level)).sum(-1) for level in LEVELS], dim=1).log()


def first_unit(level: int, blocks: int) -> int:
    """Number of the first unit of a level, of so many blocks.

    A unit has as many columns as a block has at the coarsest level.
    """
    return sum(blocks * (COARSEST // other) for other in LEVELS[: LEVELS.index(level)])


def units_of(levels: Tensor) -> Tensor:
    """(.., n keys x units of all levels) bool, what (.., n keys) levels read; 0 reads nothing."""
    return torch.cat(
        [(levels == level).repeat_interleave(COARSEST // level, -1) for level in LEVELS], dim=-1
    )


def coarsest_similar_level(blocks: Blocks, thresholds: tuple[float, float, float]) -> Tensor:
    """(B, H, n) the coarsest level at which the tokens of a block are alike; 1 where at none.

    The tokens that level r would pool are alike where the mean cosine between the first and the
    last of each r consecutive ones exceeds the threshold of the level: those of 2, 4 and 8.
    """
    unit = F.normalize(blocks.tokens, dim=-1)
    cap = torch.ones(unit.shape[:3], dtype=torch.long, device=unit.device)
    for level, threshold in zip((2, 4, 8), thresholds, strict=True):
        groups = unit.unflatten(3, (-1, level))
        valid = blocks.valid.unflatten(2, (-1, level))
        both = (valid[..., 0] & valid[..., -1])[:, None]
        cosines = (groups[..., 0, :] * groups[..., -1, :]).sum(-1) * both
        mean = cosines.sum(-1) / both.sum(-1).clamp(min=1)
        cap = torch.where(mean > threshold, level, cap)
    return cap


@dataclass(frozen=True)
class PyramidRules:
    """How levels are chosen."""

    block: int
    """Keys in a block"""
    query_block: int
    """Queries in a block"""
    importance: str
    selection: str
    """``topk`` or ``threshold``"""
    shares: tuple[float, float, float, float]
    """Of levels 1, 2, 4 and 8"""
    similar: tuple[float, float, float] | None
    """Thresholds of levels 2, 4 and 8; None: levels are not capped"""
    causal: bool
    """Whether a query sees the keys up to its own place only"""
    shifted: bool
    """Whether blocks are routed by the queries of the block before"""


def shares_of_density(
    shares: tuple[float, float, float, float], density: float
) -> tuple[float, float, float, float]:
    """Shares of levels 1, 2, 4 and 8 that read ``density`` columns a key: these, scaled. Where they
    would add up to more than 1, they are scaled to 1 and moved towards level 1.

    Raises:
        ValueError: nothing is read at any level, or density is more than 1.
    """
    own = sum(share / level for share, level in zip(shares, (1, 2, 4, 8), strict=True))
    if not 0 < density <= 1 or own <= 0:
        raise ValueError(f"no shares of density {density:g} can be made of {shares}")
    factor = min(density / own, 1 / sum(shares))
    lacking = max(0.0, (density - factor * own) / max(1 - factor * own, 1e-12))
    one, *others = (factor * share * (1 - lacking) for share in shares)
    return one + lacking, others[0], others[1], others[2]


def levels_by_rank(rules: PyramidRules, values: Tensor, allowed: Tensor) -> Tensor:
    """(.., n) level of each rank, of scores in descending order, (.., 1) of which may be chosen."""
    rank = torch.arange(values.shape[-1], device=values.device)
    ends: list[Tensor] = []
    total, before = 0.0, torch.zeros_like(allowed)
    if rules.selection == "threshold":
        weights = (values - values[..., :1]).exp().masked_fill(rank >= allowed, 0.0)
        cumulative = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
    for share in rules.shares:
        total += share
        if rules.selection == "topk":
            # A sum of shares may be a rounding below the whole number that it stands for.
            end = (allowed * total + 1e-9).floor().long()
            least = torch.ones_like(end)
        else:
            within = ((cumulative <= total) & (rank < allowed)).sum(-1, keepdim=True)
            end = torch.where(within > 0, within + 1, before)
            least = (allowed * 0.06 + 1e-9).floor().long() + 1
        if not ends:
            end = torch.maximum(end, least)
        before = torch.minimum(torch.maximum(end, before), allowed)
        ends.append(before)
    levels = torch.zeros_like(rank).expand(torch.broadcast_shapes(values.shape, before.shape))
    for level, end in zip((8, 4, 2, 1), ends[::-1], strict=True):
        levels = torch.where(rank < end, level, levels)
    return levels
