"""Distances between point clouds: training loss and metrics.

Definitions are those of PoinTr's code, after PCN (Yuan et al. 2018, section 4.2) and Tatarchenko
et al. 2019 (F-Score). With d(x, Y) the distance of a point to the nearest point of Y:

    CD-l1   = (mean d(x, Y) + mean d(y, X)) / 2
    CD-l2   =  mean d(x, Y)^2 + mean d(y, X)^2
    F-Score =  harmonic mean of the shares of x and of y with d < threshold
"""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.point_completion.geometry import nearest, take


def nearest_distances(points: Tensor, others: Tensor) -> Tensor:
    """(B, N) distances of (B, N, 3) points to their nearest of (B, M, 3) others; differentiable."""
    closest = take(others, nearest(points, others)[..., 0])
    return torch.linalg.vector_norm(points - closest, dim=-1)


def chamfer_l1(predicted: Tensor, truth: Tensor) -> Tensor:
    """(B,) CD-l1."""
    there, back = nearest_distances(predicted, truth), nearest_distances(truth, predicted)
    return (there.mean(1) + back.mean(1)) / 2


def completion_scores(predicted: Tensor, truth: Tensor, threshold: float) -> dict[str, Tensor]:
    """By name, (B,) CD-l1, CD-l2 (both times 1000) and F-Score."""
    there, back = nearest_distances(predicted, truth), nearest_distances(truth, predicted)
    precision = (there < threshold).double().mean(1)
    recall = (back < threshold).double().mean(1)
    return {
        "cd_l1": 1000 * (there.mean(1) + back.mean(1)) / 2,
        "cd_l2": 1000 * (there.square().mean(1) + back.square().mean(1)),
        # Nothing within the threshold on either side: zero, not zero by zero.
        "f_score": 2 * precision * recall / (precision + recall).clamp_min(torch.finfo().tiny),
    }
