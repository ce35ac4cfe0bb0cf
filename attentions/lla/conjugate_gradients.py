"""Matrix-free solves: conjugate gradients on all rows of a tile at once.

C_i is only ever applied to a vector y, by two products with the regressors of the visible keys:

    C_i y = sum_j p_ij ((f_j - fbar_i)·y) (f_j - fbar_i) + penalty_i y

About sqrt(cond C_i) iterations are needed, so this is the path for wide heads with a ridge that
is not small; `attentions.lla.cholesky` is exact and does not mind small ridges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.lla.basis import Basis
from attentions.lla.penalty import Penalty
from attentions.lla.regression import mean_regressors
from attentions.lla.tiles import Tile, Tiles


class ConjugateGradientSolver:
    """Systems of one call that are solved iteratively."""

    def __init__(
        self,
        tiles: Tiles,
        f: Tensor,
        penalty: Penalty,
        basis: Basis,
        *,
        iterations: int,
        tolerance: float,
    ) -> None:
        """Prepare a call.

        Args:
            tiles: of the call.
            f: (N, Lk, F) regressors.
            penalty: of the rows' coefficients.
            basis: of the regressors.
            iterations: at most, per row.
            tolerance: a row stops at |right - C x| <= tolerance |right|.
        """
        self.tiles, self.f, self.penalty = tiles, f, penalty
        self.iterations, self.tolerance = iterations, tolerance
        self.residual: Tensor | None = None

    def system(self, t: Tile, p: list[Tensor]) -> ConjugateGradientSystem:
        """See `attentions.lla.regression.Solver`."""
        return ConjugateGradientSystem(self, t, p)


class ConjugateGradientSystem:
    """C_i of a tile as a map."""

    def __init__(self, solver: ConjugateGradientSolver, t: Tile, p: list[Tensor]) -> None:
        """Take the softmax weights (n, rows, keys) of the tile's blocks."""
        self.solver, self.t, self.p = solver, t, p
        self.mean = mean_regressors(t, p, solver.f)

    def apply(self, y: Tensor) -> Tensor:
        """C_i y_i for every row, (n, rows, F)."""
        # Centring the products before they meet the regressors keeps C positive where the
        # regressors' mean is far larger than their spread.
        offset = -(y * self.mean).sum(-1, keepdim=True)
        spread = self.solver.penalty.apply(self.t, y)
        for (b, own), weights in zip(self.t.parts(), self.p, strict=True):
            f = self.solver.f[b.key_rows]
            products = self.solver.tiles.product("block", b, y[own], f, offset[own]).mul_(weights)
            own_spread = torch.bmm(products, f)
            own_spread.addcmul_(products.sum(-1, keepdim=True), self.mean[own], value=-1)
            spread[own] += own_spread
        return spread

    def solve(self, right: Tensor) -> Tensor:
        """See `attentions.lla.regression.System`.

        The recurrence's residual drifts from the true one in the arithmetic at hand. So, once the
        recurrence says that all rows have converged, the true residual is computed, and rows that
        fail by it go on from there for as long as it helps and iterations are left.
        """
        # Squares of small right-hand sides (gradients of rows that one key dominates) underflow.
        scale = right.abs().amax(-1, keepdim=True)
        scale = torch.where(scale > 0, scale, 1.0)
        right = right / scale
        size = (right * right).sum(-1)
        x = torch.zeros_like(right)
        residual = right
        left = self.solver.iterations
        error = size
        while True:
            step, used = self._descend(residual, size, left)
            left -= used
            fresh = right - self.apply(x + step)
            fresh_error = (fresh * fresh).sum(-1)
            # A restart that did not help a row is not taken.
            better = (fresh_error < error) | ~torch.isfinite(error)
            x = torch.where(better[..., None], x + step, x)
            residual = torch.where(better[..., None], fresh, residual)
            helped = bool((fresh_error < 0.5 * error).any())
            error = torch.where(better, fresh_error, error)
            target = size * self.solver.tolerance**2
            if left <= 0 or not helped or not bool((error > target).any()):
                break
        relative = torch.where(size > 0, (error / size).sqrt(), size).amax()
        worst = self.solver.residual
        self.solver.residual = relative if worst is None else torch.maximum(worst, relative)
        return x * scale

    def _descend(self, right: Tensor, size: Tensor, iterations: int) -> tuple[Tensor, int]:
        """Conjugate gradients from zero; the solution and the iterations that were used.

        A row stops by itself once its residual meets the target that ``size`` sets, and so does a
        row whose curvature y·Cy rounds to zero or below: no further step of it can be trusted.
        """
        x, r, y = torch.zeros_like(right), right.clone(), right.clone()
        rr = (r * r).sum(-1)
        target = size * self.solver.tolerance**2
        active = rr > target
        used = 0
        while used < iterations and bool(active.any()):
            cy = self.apply(y)
            curvature = (y * cy).sum(-1)
            active &= curvature > 0
            alpha = torch.where(active, rr / curvature, 0.0)[..., None]
            x.addcmul_(alpha, y)
            r.addcmul_(alpha, cy, value=-1)
            fresh = torch.where(active, (r * r).sum(-1), rr)
            beta = torch.where(active, fresh / rr, 0.0)[..., None]
            y.mul_(beta).add_(r)
            rr = fresh
            active &= rr > target
            used += 1
        return x, used
