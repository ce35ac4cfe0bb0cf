"""Answers without training, or from counts, that the scores are read against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.autoregressive_super_resolution.levels import (
    LEVELS,
    RATIO,
    coarse_colour,
    fine_grey,
    to_levels,
)


def repeated(windows: Tensor) -> Tensor:
    """(B, h, h) greys: every fine pixel has that of its coarse one."""
    coarse = coarse_colour(windows).mean(1)
    return coarse.repeat_interleave(RATIO, 1).repeat_interleave(RATIO, 2)


def bicubic(windows: Tensor) -> Tensor:
    """(B, h, h) greys from the sixteen coarse pixels around (Keys' kernel, a = -0.75), cut."""
    coarse = coarse_colour(windows).mean(1, keepdim=True)
    fine = F.interpolate(coarse, scale_factor=RATIO, mode="bicubic", align_corners=False)
    return fine[:, 0].clamp(0, 1)


class Counts:
    """Odds of a level given that of its coarse pixel and of the pixel to the left, from counts."""

    def __init__(self, training: Tensor) -> None:
        """Count in (N, 3, H, H) windows; a level that was never seen counts one."""
        table = torch.ones(LEVELS * (LEVELS + 1) * LEVELS, dtype=torch.float64)
        levels = to_levels(fine_grey(training))
        index = _context(training) * LEVELS + levels
        table += torch.bincount(index.flatten(), minlength=len(table))
        self._odds = table.view(-1, LEVELS)
        self._odds /= self._odds.sum(1, keepdim=True)

    def nll(self, windows: Tensor) -> float:
        """Nats per pixel of windows."""
        levels = to_levels(fine_grey(windows))
        return -self._odds[_context(windows), levels].log().mean().item()


def _context(windows: Tensor) -> Tensor:
    """(B, h, h) number of what a pixel's odds depend on; the left border is a level of its own."""
    left = F.pad(to_levels(fine_grey(windows))[..., :-1], (1, 0), value=LEVELS)
    return to_levels(repeated(windows)) * (LEVELS + 1) + left
