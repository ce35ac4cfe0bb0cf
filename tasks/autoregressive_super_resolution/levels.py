"""Windows of photographs: their coarse colours, and finer greys as tokens in raster order."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Batch
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import START
from tasks.tts.autoregressive import sinusoid_at

LEVELS = 16
"""Of grey"""

FINE, COARSE = 2, 4
"""Sides of the squares of the photograph that make a fine and a coarse pixel"""
RATIO = COARSE // FINE

_COLOUR_DEVIATION = 0.25
"""Unit of colours inside the model, of the range 0..1"""


def random_windows(crops: Tensor, side: int, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, side, side) uint8 from uniform places of (N, 3, H, H) crops."""
    rows = torch.randint(len(crops), (count,), generator=generator)
    places = torch.randint(crops.shape[-1] - side + 1, (count, 2), generator=generator)
    return torch.stack(
        [
            crops[row, :, top : top + side, left : left + side]
            for row, (top, left) in zip(rows.tolist(), places.tolist(), strict=True)
        ]
    )


def fine_grey(windows: Tensor) -> Tensor:
    """(B, h, h) greys in 0..1, the mean of the channels, of (B, 3, H, H) uint8."""
    return F.avg_pool2d(windows.float().mean(1, keepdim=True), FINE)[:, 0] / 255


def coarse_colour(windows: Tensor) -> Tensor:
    """(B, 3, h / RATIO, h / RATIO) in 0..1 of (B, 3, H, H) uint8."""
    return F.avg_pool2d(windows.float(), COARSE) / 255


def to_levels(grey: Tensor) -> Tensor:
    """Greys in 0..1 to levels of 0 to 15."""
    return (grey * LEVELS).long().clamp(0, LEVELS - 1)


def to_grey(levels: Tensor) -> Tensor:
    """Levels to the middle of the greys that they stand for."""
    return (levels + 0.5) / LEVELS


def as_batch(windows: Tensor) -> Batch:
    """``source`` (B, S, 3) coarse pixels and ``target`` (B, 1 + h^2), START and fine levels, row by
    row, of (B, 3, H, H) uint8.
    """
    levels = to_levels(fine_grey(windows)).flatten(1)
    colours = coarse_colour(windows).flatten(2).transpose(1, 2)
    return {
        "source": (colours - 0.5) / _COLOUR_DEVIATION,
        "target": F.pad(FIRST_TOKEN + levels, (1, 0), value=START),
    }


def fine_centres(side: int) -> Tensor:
    """(h^2, 2) rows and columns of the fine pixels of a window, in fine pixels."""
    line = torch.arange(float(side // FINE))
    return torch.cartesian_prod(line, line)


def coarse_centres(side: int) -> Tensor:
    """(S, 2) centres of the coarse pixels, in fine pixels."""
    line = RATIO * (torch.arange(side // COARSE) + 0.5) - 0.5
    return torch.cartesian_prod(line, line)


def place_codes(places: Tensor, dim: int, base: float) -> Tensor:
    """(..., dim) codes of places (..., 2): a half for rows and one for columns."""
    return sinusoid_at(places, dim // 2, base).flatten(-2)
