"""Handwritten digits as short sequences of grey levels, and ridge regression on them.

A digit of 28 x 28 pixels is shifted by up to S pixels each way, uniformly and independently (what
leaves the picture is lost, zeros come in), and then shrunk by averaging squares of pixels. A shift
leaves the digit what it is but breaks the tie between a class and single pixels: a bag of (pixel,
position) pairs, which is all that a sequence without attention is to mean pooling, can no longer
tell classes apart by templates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.data.images import DIGIT_SIDE


def shift(images: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """(B, 28, 28) images, each moved by its own whole pixels in -largest..largest each way."""
    if not largest:
        return images
    offsets = torch.randint(2 * largest + 1, (2, len(images), 1), generator=generator)
    padded = F.pad(images, (largest,) * 4)
    places = torch.arange(DIGIT_SIDE)
    rows, columns = offsets + places
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None]]


def shrink(images: Tensor, side: int) -> Tensor:
    """(B, 28, 28) uint8 to (B, side^2) grey levels 0 to 1, row by row; 28 is a multiple of side."""
    pooled = F.avg_pool2d(images[:, None].float() / 255, DIGIT_SIDE // side)
    return pooled.flatten(1)


def ridge_classifier(
    inputs: Tensor, labels: Tensor, classes: int, penalty: float
) -> tuple[Tensor, Tensor]:
    """Weights (F, classes) and intercepts (classes,) of ridge regression on one-hot targets.

    Args:
        inputs: (N, F) float64.
        labels: (N,).
        classes: number of classes.
        penalty: lambda in |y - Xw - b|^2 / N + lambda |w|^2; the intercept is not penalised.
    """
    targets = F.one_hot(labels, classes).double()
    centre, middle = inputs.mean(0), targets.mean(0)
    x = inputs - centre
    gram = x.T @ x / len(x)
    gram.diagonal().add_(penalty)
    weights = torch.linalg.solve(gram, x.T @ (targets - middle) / len(x))
    return weights, middle - centre @ weights
