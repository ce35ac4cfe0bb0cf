"""Many small symmetric positive definite solves at once."""

from __future__ import annotations

import torch
from torch import Tensor

_VECTORISED_DIM = 32
"""Up to this size a CPU solves faster by running one factorisation over all systems side by side,
the batch in the contiguous axis, than by calling LAPACK for each."""


def solve_spd_(systems: Tensor) -> Tensor:
    """Solve many systems by Cholesky factorisation; overwrites them.

    Args:
        systems: (N, D + 1, D, R) with R systems side by side: D rows of the matrix, of which only
            the lower triangle (first index >= second) is read, and the right-hand side below them.

    Returns:
        (N, D, R) solutions. A matrix that is not positive definite gives NaN.
    """
    size = systems.shape[2]
    if systems.device.type != "cpu" or size > _VECTORISED_DIM:
        matrix, right = systems[:, :size], systems[:, size]
        factor, failed = torch.linalg.cholesky_ex(matrix.permute(0, 3, 1, 2))
        solution = torch.cholesky_solve(right.transpose(1, 2)[..., None], factor)[..., 0]
        return solution.masked_fill_((failed != 0)[..., None], float("nan")).transpose(1, 2)
    # With L L^T = C, the row below C becomes L^-1 right in the course of the factorisation.
    for j in range(size):
        column = systems[:, j:, j]
        column *= column[:, :1].rsqrt()
        if j + 1 < size:
            below = column[:, 1:]
            systems[:, j + 1 :, j + 1 :].addcmul_(below[:, :, None], below[:, None, :-1], value=-1)
    solution = systems[:, size]
    for j in reversed(range(size)):
        row = systems[:, j]
        solution[:, j] /= row[:, j]
        if j:
            solution[:, :j].addcmul_(row[:, :j], solution[:, j : j + 1], value=-1)
    return solution
