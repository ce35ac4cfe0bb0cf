"""The regressors of a local polynomial and the products that their second moments need.

Regressors are the monomials of k up to the order of the polynomial, scaled so that a ridge on
their coefficients is |W_1|^2 + |W_2|^2 with W_2 the full symmetric array. A product of two of
them is a monomial of up to twice the order, and many products are the same one: for order 2 in 16
dimensions 11628 products are 4844 monomials.
"""

from __future__ import annotations

import functools
import math
from collections import Counter

import torch
from torch import Tensor

Monomial = tuple[int, ...]
"""Its variables in descending order: (2, 0, 0) is k_2 k_0^2."""


class Basis:
    """Monomials of ``dim`` variables, without the constant.

    They are graded, and within a degree those of variable i are k_i times the monomials of the
    degree below in variables up to i, which come first there: a contiguous block per variable.
    """

    def __init__(self, dim: int, order: int) -> None:
        """Enumerate the regressors, and the monomials of twice the order."""
        self.dim, self.order = dim, order
        by_degree: list[list[Monomial]] = [[(i,) for i in range(dim)]]
        self._blocks: list[list[int]] = []
        for _ in range(2 * order - 1):
            below = by_degree[-1]
            sizes = [sum(m[0] <= i for m in below) for i in range(dim)]
            self._blocks.append(sizes)
            by_degree.append([(i, *m) for i in range(dim) for m in below[: sizes[i]]])
        everything = [m for degree in by_degree for m in degree]
        features = [m for degree in by_degree[:order] for m in degree]
        self.size = len(features)
        """Regressors F."""
        self.products = len(everything)
        """Monomials of up to twice the order."""
        self.scales = [math.sqrt(_arrangements(m)) for m in features]
        """Factor of each regressor."""
        index = {m: i for i, m in enumerate(everything)}
        half = [(i, j) for i in range(self.size) for j in range(i + 1)]
        self.half = [i * self.size + j for i, j in half]
        """Where the lower triangle lies in an F x F matrix, row by row."""
        self.half_product = [
            index[tuple(sorted(features[i] + features[j], reverse=True))] for i, j in half
        ]
        """Which monomial each entry of the lower triangle is."""
        self.half_scale = [self.scales[i] * self.scales[j] for i, j in half]

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
        if self.order == 1:
            return k
        parts, below = [k], k
        for sizes in self._blocks[: self.order - 1]:
            below = torch.cat([k[..., i : i + 1] * below[..., :n] for i, n in enumerate(sizes)], -1)
            parts.append(below)
        return torch.cat(parts, -1) * k.new_tensor(self.scales)


def _arrangements(monomial: Monomial) -> int:
    """How many entries of the full array are this monomial."""
    count = math.factorial(len(monomial))
    for repeats in Counter(monomial).values():
        count //= math.factorial(repeats)
    return count


@functools.cache
def basis_of(dim: int, order: int) -> Basis:
    """The basis, made once."""
    return Basis(dim, order)
