"""How local regression penalises the coefficients of a row's fit."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from attentions.lla.basis import Basis
from attentions.lla.tiles import Tile


class Penalty(Protocol):
    """A symmetric positive definite matrix per query row, added to the row's system."""

    def add_(self, matrix: Tensor, t: Tile) -> None:
        """Add a tile's matrices to (F, F, n, rows), in the lower triangle at least."""

    def apply(self, t: Tile, y: Tensor) -> Tensor:
        """A tile's matrices times y, (n, rows, F)."""

    def gradient(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of -sum_i u_i^T penalty_i x_i in the ridge (N,) and in the shift, if any.

        u and x are (N, Lq, F).
        """


class Ridge:
    """ridge |W|^2: the matrix ridge I in every row."""

    def __init__(self, ridge: Tensor) -> None:
        """Take the (N,) ridges."""
        self.ridge = ridge

    def add_(self, matrix: Tensor, t: Tile) -> None:
        """See `Penalty`."""
        diagonal = matrix.diagonal(dim1=0, dim2=1)
        diagonal += self.ridge[t.sequences, None, None]

    def apply(self, t: Tile, y: Tensor) -> Tensor:
        """See `Penalty`."""
        return self.ridge[t.sequences, None, None] * y

    def gradient(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Penalty`."""
        return -(u * x).sum((1, 2)), None


class QuadraticRidge:
    """ridge (|W_1|^2 + |W_2|^2) of a quadratic around a point s, in coordinates around the origin.

    With f(z) = [z, zz^T] the regressors around s and those around the origin are related by

        f(k - s) = M f(k) + constant,    M^-1 = [[I, 0], [B, I]],    B y = y s^T + s y^T

    (entries off the diagonal once, times sqrt 2, as `attentions.lla.basis` has them). A ridge on
    the coefficients around s is the matrix ridge M^-1 M^-T for those around the origin.
    """

    def __init__(self, ridge: Tensor, shift: Tensor, curved: int) -> None:
        """Take the (N,) ridges, the points s, (N, Lq, D), and how many of their components have
        quadratic terms.
        """
        self.ridge, self.shift = ridge, shift
        self.dim, self.curved = shift.shape[2], curved
        self.high, self.low = torch.tril_indices(curved, curved, device=shift.device)
        factor = shift.new_full((len(self.high),), math.sqrt(2.0))
        self.factor = factor.masked_fill_(self.high == self.low, 1.0)

    def add_(self, matrix: Tensor, t: Tile) -> None:
        """See `Penalty`."""
        dim, ridge = self.dim, self.ridge[t.sequences, None]
        s = self.shift[t.query_rows].permute(2, 0, 1)
        pair = torch.arange(len(self.high), device=s.device)
        factor = self.factor[:, None, None]
        b = s.new_zeros(len(pair), dim, *s.shape[1:])
        b[pair, self.high] = s[self.low] * factor
        b[pair, self.low] += s[self.high] * factor
        matrix[dim:, :dim] += ridge * b
        square = matrix[dim:, dim:]
        for column in range(self.curved):
            square.addcmul_((ridge * b[:, column])[:, None], b[None, :, column])
        diagonal = matrix.diagonal(dim1=0, dim2=1)
        diagonal += ridge[..., None]

    def apply(self, t: Tile, y: Tensor) -> Tensor:
        """See `Penalty`."""
        s = self.shift[t.query_rows]
        first, second = self._around_shift(y, s)
        outer = first[..., self.high] * s[..., self.low] + first[..., self.low] * s[..., self.high]
        out = torch.cat([first, second + outer * self.factor], dim=-1)
        return self.ridge[t.sequences, None, None] * out

    def gradient(self, u: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Penalty`."""
        u_first, u_second = self._around_shift(u, self.shift)
        x_first, x_second = self._around_shift(x, self.shift)
        dridge = -(u_first * x_first).sum((1, 2)) - (u_second * x_second).sum((1, 2))
        dshift = self._symmetric(u_second, x_first) + self._symmetric(x_second, u_first)
        return dridge, -self.ridge[:, None, None] * dshift

    def _around_shift(self, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """M^-T y, both parts."""
        second = y[..., self.dim :]
        return y[..., : self.dim] + self._symmetric(second, s), second

    def _symmetric(self, second: Tensor, s: Tensor) -> Tensor:
        """B^T y of the quadratic part y: 2 Y s with Y the symmetric matrix that y stands for."""
        scaled = second * self.factor
        out = torch.zeros_like(s)
        out.index_add_(-1, self.high, scaled * s[..., self.low])
        return out.index_add_(-1, self.low, scaled * s[..., self.high])


def penalty_of(ridge: Tensor, shift: Tensor | None, basis: Basis) -> Penalty:
    """The penalty of a call.

    Args:
        ridge: (N,) positive.
        shift: (N, Lq, D) points around which a quadratic's coefficients are meant; None for a
            line, whose slope is the same around any point.
        basis: the regressors.
    """
    return Ridge(ridge) if shift is None else QuadraticRidge(ridge, shift, basis.curved)
