"""The regressors of a local polynomial and the products that their second moments need.

Regressors are the components of k and, for a polynomial of order 2, the products of its leading
components, scaled so that a ridge on their coefficients is |W_1|^2 + |W_2|^2 with W_2 the full
symmetric array. A product of two regressors is a monomial of up to degree 4, and many are the same
one: with quadratic terms in all of 16 dimensions 11628 products are 4844 monomials.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

Monomial = tuple[int, ...]
"""Its variables in descending order: (2, 0, 0) is k_2 k_0^2."""


class Basis:
    """Regressors in ``dim`` variables, of which the first ``curved`` have quadratic terms.

    Monomials are graded, and within a degree those of highest variable i are k_i times the
    monomials of the degree below in variables up to i (and below ``curved`` where they stand for
    quadratic terms), which come first there: a contiguous block per variable.
    """

    def __init__(self, dim: int, curved: int = 0) -> None:
        """Enumerate the regressors, and the products of two of them."""
        self.dim, self.curved = dim, curved
        linear: list[Monomial] = [(i,) for i in range(dim)]
        everything = below = linear
        self._blocks: list[list[int]] = []
        for variables, limit in self._degrees():
            sizes = [sum(m[0] <= min(i, limit) for m in below) for i in range(variables)]
            below = [(i, *m) for i in range(variables) for m in below[: sizes[i]]]
            self._blocks.append(sizes)
            everything = everything + below
        quadratic = curved * (curved + 1) // 2
        features = everything[: dim + quadratic]
        self.size = len(features)
        """Regressors F."""
        self.products = len(everything)
        """Monomials that are a regressor or a product of two."""
        self.scales = [math.sqrt(len(set(m)) if len(m) == 2 else 1) for m in features]
        """Factor of each regressor: k_i k_j with i != j stands for two entries of k k^T."""
        index = {m: i for i, m in enumerate(everything)}
        half = [(i, j) for i in range(self.size) for j in range(i + 1)]
        self.half = [i * self.size + j for i, j in half]
        """Where the lower triangle lies in an F x F matrix, row by row."""
        self.half_product = [
            index[tuple(sorted(features[i] + features[j], reverse=True))] for i, j in half
        ]
        """Which monomial each entry of the lower triangle is."""
        self.half_scale = [self.scales[i] * self.scales[j] for i, j in half]

    def _degrees(self) -> list[tuple[int, int]]:
        """For degrees 2 and up: highest variables, and the highest variable below them."""
        degrees = [(self.dim, self.dim)]
        if self.curved:
            degrees += [(self.dim, self.curved - 1), (self.curved, self.curved)]
        return degrees

    def fill_(self, out: Tensor, k: Tensor) -> None:
        """Write the products (n, products, Lk) of k (n, D, Lk) into ``out``."""
        out[:, : self.dim] = k
        k = out[:, : self.dim]
        below, position = k, self.dim
        for sizes in self._blocks:
            first = position
            for i, size in enumerate(sizes):
                block = out[:, position : position + size]
                torch.mul(below[:, :size], k[:, i : i + 1], out=block)
                position += size
            below = out[:, first:position]

    def lift(self, k: Tensor) -> Tensor:
        """Regressors (..., F) of k (..., D); differentiable."""
        quadratic = [k[..., i : i + 1] * k[..., : i + 1] for i in range(self.curved)]
        return torch.cat([k, *quadratic], -1) * k.new_tensor(self.scales)


@functools.cache
def basis_of(dim: int, curved: int = 0) -> Basis:
    """The basis, made once."""
    return Basis(dim, curved)
