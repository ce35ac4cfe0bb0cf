"""Exact solves: the matrix of every query row of a tile, built by one product, and factorised.

C_i of a whole tile is one matrix product of the weights with the products of regressors (the
symmetric half of them), taken a chunk of keys at a time, minus the outer product of the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.lla.basis import Basis
from attentions.lla.penalty import Penalty
from attentions.lla.tiles import Block, Tile, Tiles
from attentions.shared.spd import SpdSystems

_CHUNK = 1 << 23
"""Numbers in the products of regressors that are held at a time: 32 MiB in float32."""


class CholeskySystem:
    """C_i of a tile, ready to be factorised."""

    def __init__(self, mean: Tensor, systems: SpdSystems) -> None:
        """Take the mean (n, rows, F) and the systems of all rows."""
        self.mean = mean
        self._systems = systems

    def solve(self, right: Tensor) -> Tensor:
        """See `attentions.lla.regression.System`."""
        n, rows, _ = right.shape
        self._systems.right.unflatten(-1, (n, rows)).copy_(right.permute(2, 0, 1))
        return self._systems.solve_().unflatten(-1, (n, rows)).permute(1, 2, 0)


class CholeskySolver:
    """Builds and factorises the matrices of one call."""

    residual: Tensor | None = None

    def __init__(self, tiles: Tiles, f: Tensor, penalty: Penalty, basis: Basis) -> None:
        """See `attentions.lla.regression.SolverFactory`; f is the basis at ``tiles.k``."""
        self.tiles, self.penalty, self.basis = tiles, penalty, basis
        self.gather = _Gather(basis, f)
        self._held: tuple[int, int, int] | None = None
        self._systems: dict[int, SpdSystems] = {}

    def system(self, t: Tile, p: list[Tensor]) -> CholeskySystem:
        """See `attentions.lla.regression.Solver`."""
        n = p[0].shape[0]
        rows = sum(weights.shape[1] for weights in p)
        if n * rows not in self._systems:
            self._systems[n * rows] = SpdSystems(self.basis.size, n * rows, p[0])
        systems = self._systems[n * rows]
        matrix = systems.matrix.unflatten(-1, (n, rows))
        moments = self.tiles.buffer("moments", n, self.basis.products, rows)
        for (b, own), weights in zip(t.parts(), p, strict=True):
            self._add_up(b, weights, moments[:, :, own[1]])
        mean = self.gather.covariance_(matrix, moments.transpose(0, 1))
        self.penalty.add_(matrix, t)
        return CholeskySystem(mean.permute(1, 2, 0), systems)

    def _add_up(self, b: Block, p: Tensor, moments: Tensor) -> None:
        """Fill (n, products, rows) with the weighted sums of the products of a block's keys."""
        if b.keys == 0:
            moments.zero_()
            return
        # The keys of a causal block's second half of rows are hidden from its first half.
        half = p.shape[1] // 2 if self.tiles.causal and b.keys > p.shape[1] else 0
        self._accumulate(moments, b, p, 0, b.keys - half)
        if half:
            self._accumulate(moments[..., -half:], b, p[:, -half:], b.keys - half, b.keys)

    def _accumulate(self, moments: Tensor, b: Block, p: Tensor, first: int, last: int) -> None:
        """Add the keys [first, last) to moments, or start with them where they are the first."""
        n = p.shape[0]
        chunk = max(1, min(self.tiles.k.shape[1], _CHUNK // (n * self.basis.products)))
        start = first
        while start < last:
            held = start // chunk * chunk
            stop = min(held + chunk, last)
            products = self._products(b, held, chunk)[..., start - held : stop - held]
            weights = p[..., start:stop].transpose(1, 2)
            if start:
                moments.baddbmm_(products, weights)
            else:
                torch.bmm(products, weights, out=moments)
            start = stop

    def _products(self, b: Block, start: int, chunk: int) -> Tensor:
        """(n, products, chunk) of the keys from ``start`` on; kept until others are asked for."""
        k = self.tiles.k[b.sequences, start : start + chunk].transpose(1, 2)
        out = self.tiles.buffer("products", k.shape[0], self.basis.products, k.shape[2])
        held = (b.first, b.last, start)
        if self._held != held:
            self._held = held
            self.basis.fill_(out, k)
        return out


class _Gather:
    """From moments of monomials to second moments of regressors."""

    def __init__(self, basis: Basis, like: Tensor) -> None:
        self.basis = basis
        self._views: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Tensor, Tensor]]] = {}
        if basis.curved:
            self.half = torch.tensor(basis.half, device=like.device)
            self.product = torch.tensor(basis.half_product, device=like.device)
            self.half_scale = like.new_tensor(basis.half_scale)[:, None, None]
            self.scale = like.new_tensor(basis.scales)[:, None, None]

    def covariance_(self, matrix: Tensor, moments: Tensor) -> Tensor:
        """Fill the lower triangles of (F, F, n, rows) with the covariances of the regressors.

        Args:
            matrix: to fill.
            moments: (products, n, rows).

        Returns:
            (F, n, rows) means of the regressors.
        """
        size = self.basis.size
        mean = moments[:size]
        if self.basis.curved:
            mean = mean * self.scale
            matrix.flatten(0, 1)[self.half] = moments[self.product] * self.half_scale
            matrix.addcmul_(mean[:, None], mean[None], value=-1)
            return mean
        for row, pivot, leading, out in self._rows(matrix, moments):
            torch.addcmul(row, pivot, leading, value=-1, out=out)
        return mean

    def _rows(self, matrix: Tensor, moments: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For every row of the triangle the views that it takes and fills, kept from tile to tile:
        making them costs as much as the arithmetic.
        """
        place = (matrix.data_ptr(), moments.data_ptr(), *moments.shape)
        if place not in self._views:
            mean, first, views = moments[: self.basis.size], self.basis.size, []
            for i in range(self.basis.size):
                # The products of degree 2 stand in the order of the lower triangle's rows.
                row = moments[first : first + i + 1]
                views.append((row, mean[i : i + 1], mean[: i + 1], matrix[i, : i + 1]))
                first += i + 1
            self._views[place] = views
        return self._views[place]
