"""Many small symmetric positive definite solves at once."""

from __future__ import annotations

import torch
from torch import Tensor

_VECTORISED_DIM = 32
"""Up to this size a CPU solves faster by running one factorisation over all systems side by side,
the batch in the contiguous axis, than by calling LAPACK for each."""


def solve_spd_(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve many systems by Cholesky factorisation; overwrites both arguments.

    Args:
        matrix: (N, D, D, R) with R systems side by side; only the lower triangle (first index >=
            second) is read.
        right: (N, D, R).

    Returns:
        (N, D, R) solutions. A matrix that is not positive definite gives NaN.
    """
    if matrix.device.type != "cpu" or matrix.shape[1] > _VECTORISED_DIM:
        factor, failed = torch.linalg.cholesky_ex(matrix.permute(0, 3, 1, 2))
        solution = torch.cholesky_solve(right.transpose(1, 2)[..., None], factor)[..., 0]
        return solution.masked_fill_((failed != 0)[..., None], float("nan")).transpose(1, 2)
    size = matrix.shape[1]
    for j in range(size):
        matrix[:, j:, j] *= matrix[:, j, j].rsqrt()[:, None]
        right[:, j] /= matrix[:, j, j]
        if j + 1 < size:
            column = matrix[:, j + 1 :, j]
            matrix[:, j + 1 :, j + 1 :].addcmul_(column[:, :, None], column[:, None], value=-1)
            right[:, j + 1 :].addcmul_(column, right[:, j : j + 1], value=-1)
    for j in reversed(range(size)):
        right[:, j] /= matrix[:, j, j]
        right[:, :j].addcmul_(matrix[:, j, :j], right[:, j : j + 1], value=-1)
    return right
