"""Many small symmetric positive definite solves at once."""

from __future__ import annotations

import torch
from torch import Tensor

_VECTORISED_SIZE = 32
"""Up to this size a CPU solves faster by running one factorisation over all systems side by side,
the batch in the contiguous axis, than by calling LAPACK for each."""


class SpdSystems:
    """Memory for R systems side by side, to be filled, solved and filled again.

    Write the matrices into ``matrix`` (only the lower triangle, first index >= second, is read)
    and the right-hand sides into ``right``, then call `solve_`.
    """

    def __init__(self, size: int, count: int, like: Tensor) -> None:
        """Allocate.

        Args:
            size: D of a system.
            count: R systems.
            like: has the dtype and device.
        """
        self._data = like.new_empty(size + 1, size, count)
        self.matrix = self._data[:size]
        """(D, D, R)."""
        self.right = self._data[size]
        """(D, R)."""
        self._vectorised = like.device.type == "cpu" and size <= _VECTORISED_SIZE
        if self._vectorised:
            self._plan(size)

    def solve_(self) -> Tensor:
        """(D, R) solutions, valid until the systems are filled again; overwrites both arguments.

        A matrix that is not positive definite gives NaN.
        """
        if not self._vectorised:
            factor, failed = torch.linalg.cholesky_ex(self.matrix.permute(2, 0, 1))
            solution = torch.cholesky_solve(self.right.T[..., None], factor)[..., 0]
            return solution.masked_fill_((failed != 0)[:, None], float("nan")).T
        # With L L^T = C, the row below C becomes L^-1 right in the course of the factorisation.
        for pivot, column, left, top, trailing in self._columns:
            torch.rsqrt(pivot, out=self._root)
            column.mul_(self._root)
            trailing.addcmul_(left, top, value=-1)
        for pivot, own, above, row in self._rows:
            own.div_(pivot)
            above.addcmul_(row, own, value=-1)
        return self.right

    def _plan(self, size: int) -> None:
        """The views that each step works on: taking them costs as much as the arithmetic."""
        data = self._data
        self._root = torch.empty_like(data[0, :1])
        self._columns = [
            (
                data[j, j : j + 1],
                data[j:, j],
                data[j + 1 :, j, None],
                data[None, j + 1 : size, j],
                data[j + 1 :, j + 1 :],
            )
            for j in range(size)
        ]
        self._rows = [
            (data[j, j : j + 1], self.right[j : j + 1], self.right[:j], data[j, :j])
            for j in reversed(range(size))
        ]
