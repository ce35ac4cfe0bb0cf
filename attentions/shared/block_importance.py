"""How much blocks of keys matter to blocks of queries: scores that choose what is read.

Scores are logarithms, for which only differences within a row count, so that none of them vanishes.
No gradient goes through them. They are made a tile of query blocks at a time.

A block of queries that is routed by its own queries would let every query see which keys the later
ones of its block look for. Where that must not be, the queries of the block before stand in for
them: `Blocks.before`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_SCORES = 1 << 22
"""Scores of single tokens that are alive at a time"""


@dataclass(frozen=True)
class Blocks:
    """Tokens in blocks, zeros where there is none.

    Attributes:
        tokens: (B, H, n, size, D) in float32 at least.
        valid: (B or 1, n, size) bool.
    """

    tokens: Tensor
    valid: Tensor

    @classmethod
    def of(cls, x: Tensor, mask: Tensor | None, size: int) -> Blocks:
        """Of tokens (B, H, L, D), whose masked ones are zeros, and a mask (B, L)."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        spare = -x.shape[2] % size
        if mask is None:
            mask = torch.ones(1, x.shape[2], dtype=torch.bool, device=x.device)
        tokens = F.pad(x, (0, 0, 0, spare)).unflatten(2, (-1, size))
        return cls(tokens, F.pad(mask, (0, spare)).unflatten(1, (-1, size)))

    @property
    def counts(self) -> Tensor:
        """(B or 1, n) valid tokens of each block."""
        return self.valid.sum(-1)

    def means(self) -> Tensor:
        """(B, H, n, D) over the valid tokens; zeros where there is none."""
        counts = self.counts.clamp(min=1)[:, None, :, None]
        return self.tokens.sum(3) / counts.to(self.tokens.dtype)

    def at(self, places: Tensor) -> Blocks:
        """Some places of every block."""
        return Blocks(self.tokens.index_select(3, places), self.valid.index_select(2, places))

    def before(self) -> Blocks:
        """The block before in the place of each, for the first one an empty block."""
        return Blocks(
            F.pad(self.tokens[:, :, :-1], (0, 0, 0, 0, 1, 0)),
            F.pad(self.valid[:, :-1], (0, 0, 1, 0)),
        )


Importance = Callable[[Blocks, Blocks, Tensor], Tensor]
"""From blocks of queries and keys, and (B or 1, H or 1, n queries, n keys) bool which of the latter
may be chosen, to their scores (B, H, n queries, n keys); -inf where they may not."""


@torch.no_grad()
def largest_share(queries: Blocks, keys: Blocks, allowed: Tensor) -> Tensor:
    """Largest over queries a of R_aj - max_j R_aj.

    R_aj is the largest q_a·k / sqrt(D) over keys of block j. So this is the logarithm of the
    largest weight of a key of the block, where the largest of all keys is 1.
    """
    count, size = keys.tokens.shape[2:4]
    masked = not bool(keys.valid.all())
    parts = []
    for own, valid, some in _tiles(queries, count * size, allowed):
        # Blocks that none of the queries may choose are not looked at.
        last = int(some.flatten(0, -2).any(0).nonzero().amax()) + 1 if some.any() else 1
        # The tokens of a block are far apart, so that the maximum over them takes whole vectors.
        flat = keys.tokens[:, :, :last].transpose(2, 3).flatten(2, 3)
        scores = (own.flatten(2, 3) * own.shape[-1] ** -0.5) @ flat.mT
        if masked:
            hidden = ~keys.valid[:, :last].transpose(1, 2).flatten(1)
            scores.masked_fill_(hidden[:, None, None], -math.inf)
        best = scores.unflatten(-1, (size, last)).amax(-2).unflatten(2, own.shape[2:4])
        best = best.masked_fill(~some[..., None, :last], -math.inf)
        top = best.amax(-1, keepdim=True)
        share = best - top.masked_fill(top == -math.inf, 0.0)
        share = share.masked_fill(~valid[:, None, ..., None], -math.inf).amax(3)
        parts.append(F.pad(share, (0, count - last), value=-math.inf))
    return torch.cat(parts, dim=2)


@torch.no_grad()
def mean_scores(queries: Blocks, keys: Blocks, allowed: Tensor) -> Tensor:
    """The product of the means of both blocks over sqrt(D)."""
    scores = queries.means() @ keys.means().mT * queries.tokens.shape[-1] ** -0.5
    return scores.masked_fill(~allowed, -math.inf)


@torch.no_grad()
def antidiagonal_mass(queries: Blocks, keys: Blocks, allowed: Tensor) -> Tensor:
    """Softmax mass of the block, of sums of scores along antidiagonals (XAttention).

    In tiles of s x s tokens, s at most 16, the scores on the antidiagonal are summed and divided by
    s sqrt(D); the block's mass is that of its tiles in a softmax over all tiles of a row.
    """
    side = math.gcd(16, queries.tokens.shape[3], keys.tokens.shape[3])
    tiles = keys.tokens.unflatten(3, (-1, side))
    flat = tiles.flatten(4).flatten(2, 3)
    some_key = keys.valid.unflatten(2, (-1, side)).any(-1)
    hidden = ~some_key.flatten(1)[:, None, None]
    per_block = some_key.shape[2]
    parts = []
    for own, valid, some in _tiles(queries, flat.shape[2], allowed):
        rows = own.unflatten(3, (-1, side)).flip(4)
        scores = rows.flatten(4).flatten(2, 3) @ flat.mT / (side * own.shape[-1] ** 0.5)
        scores = scores.masked_fill_(hidden, -math.inf).unflatten(2, rows.shape[2:4])
        off = ~some.repeat_interleave(per_block, -1)[..., None, :]
        scores = scores.masked_fill_(off, -math.inf)
        mass = scores.unflatten(-1, (-1, per_block)).logsumexp(-1)
        total = mass.logsumexp(-1, keepdim=True)
        mass = mass - total.masked_fill(total == -math.inf, 0.0)
        filled = valid.unflatten(2, (-1, side)).any(-1)[:, None, ..., None]
        parts.append(mass.masked_fill(~filled, -math.inf).logsumexp(3))
    return torch.cat(parts, dim=2)


def _tiles(
    queries: Blocks, columns: int, allowed: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, validity and allowed key blocks of some query blocks at a time."""
    batch, heads, count, size = queries.tokens.shape[:4]
    step = max(1, _SCORES // max(1, batch * heads * size * columns))
    for start in range(0, count, step):
        own = slice(start, start + step)
        yield queries.tokens[:, :, own], queries.valid[:, own], allowed[:, :, own]


IMPORTANCE: dict[str, Importance] = {
    "maxexp": largest_share,
    "meanpool": mean_scores,
    "xattn": antidiagonal_mass,
}
"""By the names that options have for them"""


def ranks(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (.., n) in descending order and the order; of equal ones the first comes first."""
    ordered = scores.sort(dim=-1, descending=True, stable=True)
    return ordered.values, ordered.indices
