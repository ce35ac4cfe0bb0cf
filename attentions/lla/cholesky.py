"""Exact solves: the matrix of every query row of a tile, built by one product, and factorised.

C_i of a whole tile is one matrix product of the weights with the products of regressors (the
symmetric half of them), taken a chunk of keys at a time, minus the outer product of the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.lla.basis import Basis, basis_of
from attentions.lla.penalty import Penalty
from attentions.lla.tiles import Tile, Tiles
from attentions.spd import solve_spd_

_CHUNK = 1 << 23
"""Numbers in the products of regressors that are held at a time: 32 MiB in float32."""


class CholeskySystem:
    """C_i of a tile, ready to be factorised."""

    def __init__(self, mean: Tensor, systems: Tensor) -> None:
        """Take the mean (n, rows, F) and the systems (n, F + 1, F, rows), right-hand side unset."""
        self.mean = mean
        self._systems = systems

    def solve(self, right: Tensor) -> Tensor:
        """See `attentions.lla.regression.System`."""
        self._systems[:, -1] = right.transpose(1, 2)
        return solve_spd_(self._systems).transpose(1, 2)


class CholeskySolver:
    """Builds and factorises the matrices of one call."""

    residual: Tensor | None = None

    def __init__(self, tiles: Tiles, f: Tensor, penalty: Penalty) -> None:
        """See `attentions.lla.regression.SolverFactory`; the regressors are those of the basis of
        ``tiles.k`` that has as many.
        """
        self.tiles, self.penalty = tiles, penalty
        dim = tiles.k.shape[2]
        self.basis = basis_of(dim, 1 if f.shape[2] == dim else 2)
        self.gather = _Gather(self.basis, f)
        self._held: tuple[int, int, int] | None = None

    def system(self, t: Tile, p: Tensor) -> CholeskySystem:
        """See `attentions.lla.regression.Solver`."""
        n, rows, _ = p.shape
        size, products = self.basis.size, self.basis.products
        moments = self.tiles.buffer("moments", n, products, rows)
        chunk = max(1, min(self.tiles.k.shape[1], _CHUNK // (n * products)))
        for start in range(0, max(t.keys, 1), chunk):
            stop = min(start + chunk, t.keys)
            monomials = self._products(t, start, chunk)[..., : stop - start]
            weights = p[..., start:stop].transpose(1, 2)
            if start:
                moments.baddbmm_(monomials, weights)
            else:
                torch.bmm(monomials, weights, out=moments)
        systems = self.tiles.buffer("systems", n, size + 1, size, rows)
        mean = self.gather.mean(moments)
        self.gather.fill_(systems.view(n, -1, rows), moments)
        matrix = systems[:, :size]
        matrix.addcmul_(mean[:, :, None], mean[:, None], value=-1)
        self.penalty.add_(matrix, t)
        return CholeskySystem(mean.transpose(1, 2), systems)

    def _products(self, t: Tile, start: int, chunk: int) -> Tensor:
        """(n, products, chunk) of the keys from ``start`` on; kept until others are asked for."""
        k = self.tiles.k[t.sequences, start : start + chunk].transpose(1, 2)
        out = self.tiles.buffer("products", k.shape[0], self.basis.products, k.shape[2])
        held = (t.first, t.last, start)
        if self._held != held:
            self._held = held
            self.basis.fill_(out, k)
        return out


class _Gather:
    """From moments of monomials to second moments of regressors."""

    def __init__(self, basis: Basis, like: Tensor) -> None:
        self.basis = basis
        self.half = torch.tensor(basis.half, device=like.device)
        if basis.order > 1:
            self.product = torch.tensor(basis.half_product, device=like.device)
            self.half_scale = like.new_tensor(basis.half_scale)[:, None]
            self.scale = like.new_tensor(basis.scales)[:, None]

    def mean(self, moments: Tensor) -> Tensor:
        """(n, F, rows) means of the regressors."""
        mean = moments[:, : self.basis.size]
        return mean if self.basis.order == 1 else mean * self.scale

    def fill_(self, flat: Tensor, moments: Tensor) -> None:
        """Write the lower triangles of the second moments into (n, F F + ..., rows)."""
        if self.basis.order == 1:
            # The products of degree 2 stand in just this order.
            flat[:, self.half] = moments[:, self.basis.dim :]
        else:
            flat[:, self.half] = moments[:, self.product] * self.half_scale
