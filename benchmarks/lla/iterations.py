"""How many iterations conjugate gradients take: the torch path does not say, and so is watched."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from torch import Tensor

from attentions.lla.conjugate_gradients import ConjugateGradientSystem
from attentions.lla.residual import ResidualMonitor, ResidualWarning
from attentions.lla.solvers import Budget, local_linear_attention


@contextmanager
def counted_products() -> Iterator[list[int]]:
    """Products with C_i of every tile that is solved within, in their order: one an iteration, and
    one for each look at the true residual.
    """
    counts: list[int] = []
    apply, solve = ConjugateGradientSystem.apply, ConjugateGradientSystem.solve

    def counting_solve(self: ConjugateGradientSystem, right: Tensor) -> Tensor:
        counts.append(0)
        return solve(self, right)

    def counting_apply(self: ConjugateGradientSystem, y: Tensor) -> Tensor:
        counts[-1] += 1
        return apply(self, y)

    with patch.multiple(ConjugateGradientSystem, solve=counting_solve, apply=counting_apply):
        yield counts


def kernel_iterations(
    q: Tensor, k: Tensor, v: Tensor, ridge: Tensor, budget: Budget, rows: int = 64, tiles: int = 8
) -> float:
    """Iterations T of the causal forward kernel, whose tiles of queries stop with their last row.

    Taken from the torch path on a sample of tiles of every head, and weighted by the keys that a
    tile sees, as its work is.

    Args:
        q: (N, L, D). k: (N, L, D). v: (N, L, Dv).
        ridge: (N,).
        budget: of the kernel.
        rows: of a tile.
        tiles: sampled per head, evenly over its length.
    """
    length, scale = q.shape[1], q.shape[2] ** -0.5
    monitor = ResidualMonitor("raise the iterations")
    rows = min(rows, length)
    weighted = total = 0.0
    for stop in sorted({max(rows, (i + 1) * length // tiles) for i in range(tiles)}):
        for n in range(q.shape[0]):
            head = slice(n, n + 1)
            with counted_products() as products, warnings.catch_warnings():
                # The kernel's own residual is what counts.
                warnings.simplefilter("ignore", ResidualWarning)
                local_linear_attention(
                    q[head, stop - rows : stop], k[head, :stop], v[head, :stop], ridge[head],
                    scale=scale, causal=True, solver="cg", budget=budget, monitor=monitor,
                )  # fmt: skip
            weighted += stop * (sum(products) - len(products))
            total += stop
    return weighted / total
