"""What comes before and after PoinTr's decoder: queries with coarse centres, and folded patches.

Shapes: B batch, T point proxies, M queries, E width, S points of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks.point_completion.layers import SLOPE, TokenMlp, TokenNorm

POOLED = 1024
"""Width of the features that are pooled over tokens"""


class QueryGenerator(nn.Module):
    """As published: coarse centres from the pooled encoder output, queries from both.

    Every query knows the whole input before the decoder begins: a path around cross attention.
    """

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        self.widen = TokenMlp(dim, POOLED, POOLED)
        self.centres = nn.Sequential(
            nn.Linear(POOLED, POOLED), nn.ReLU(), nn.Linear(POOLED, 3 * queries)
        )
        self.query = nn.Sequential(
            nn.Linear(POOLED + 3, POOLED),
            nn.LeakyReLU(SLOPE),
            nn.Linear(POOLED, POOLED),
            nn.LeakyReLU(SLOPE),
            nn.Linear(POOLED, dim),
        )

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, E) to centres (B, M, 3) and queries (B, M, E)."""
        whole = self.widen(memory).amax(1)
        centres = self.centres(whole).unflatten(1, (-1, 3))
        shared = whole[:, None].expand(-1, centres.shape[1], -1)
        return centres, self.query(torch.cat([shared, centres], dim=-1))


class LearnedQueries(nn.Module):
    """Queries and centres that are the same for every input, as in DETR (Carion et al. 2020).

    They learn of the input through cross attention alone.
    """

    def __init__(self, dim: int, queries: int) -> None:
        super().__init__()
        self.anchor = nn.Parameter(0.25 * torch.randn(queries, 3))
        self.query = nn.Parameter(torch.randn(queries, dim))

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, E), of which only B is read, to centres (B, M, 3) and queries (B, M, E)."""
        batch = len(memory)
        return self.anchor.expand(batch, -1, -1), self.query.expand(batch, -1, -1)


class CentreShift(nn.Module):
    """How far the decoder moves learned centres; at the start, nowhere."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.shift = nn.Linear(dim, 3)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, E) to (B, M, 3)."""
        return self.shift(self.norm(x))


class Folding(nn.Module):
    """A grid of S points folded twice into a patch around zero (FoldingNet, Yang et al. 2018)."""

    seed: Tensor

    def __init__(self, dim: int, side: int, hidden: int, start: float = 1.0) -> None:
        """Build both folds.

        Args:
            dim: E.
            side: the grid has the square of this many points.
            hidden: width of the folds.
            start: size of the patches at the start, by that of torch's own.
        """
        super().__init__()
        line = torch.linspace(-1, 1, side)
        grid = torch.cartesian_prod(line, line).flip(1)
        self.register_buffer("seed", grid, persistent=False)
        self.first = _fold(dim + 2, hidden, 1.0)
        self.second = _fold(dim + 3, hidden, start)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, E) to the offsets (B, M, S, 3)."""
        batch, queries = x.shape[:2]
        points = len(self.seed)
        own = x.flatten(0, 1)[:, None].expand(-1, points, -1)
        folded = self.first(torch.cat([self.seed.expand(len(own), -1, -1), own], dim=-1))
        folded = self.second(torch.cat([folded, own], dim=-1))
        return folded.view(batch, queries, points, 3)


class PooledFeatures(nn.Module):
    """As published: every query with the maximum over all queries and with its centre."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.widen = TokenMlp(dim, POOLED, POOLED)
        self.narrow = nn.Linear(POOLED + dim + 3, dim)

    def forward(self, x: Tensor, centres: Tensor) -> Tensor:
        """(B, M, E) and (B, M, 3) to (B, M, E)."""
        whole = self.widen(x).amax(1, keepdim=True).expand(-1, x.shape[1], -1)
        return self.narrow(torch.cat([whole, x, centres], dim=-1))


def _fold(channels: int, hidden: int, start: float) -> nn.Sequential:
    last = nn.Linear(hidden // 2, 3)
    with torch.no_grad():
        last.weight.mul_(start)
        last.bias.mul_(start)
    return nn.Sequential(
        nn.Linear(channels, hidden),
        TokenNorm(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden // 2),
        TokenNorm(hidden // 2),
        nn.ReLU(),
        last,
    )
