"""Sizes at which the mechanism itself is measured, by scale and device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cab.info import Scale


@dataclass(frozen=True)
class EfficiencySettings:
    """Shapes and budgets of one efficiency cell."""

    lengths: tuple[int, ...]
    """Tokens; in cross attention queries and keys are equally many."""
    batch: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    seconds: float
    """Time given to the timed calls of one length and phase, softmax included; one timed round is
    made in any case."""
    rounds: int
    """Most timed rounds of one length and phase."""
    cell_seconds: float = 120.0
    """Points that a cell has not begun by then are recorded as ``timeout`` without being tried."""


def efficiency_settings(scale: Scale, device: str) -> EfficiencySettings:
    """On a CPU the head geometry of the small backbones in float32, on a GPU that of common
    language models in bfloat16.
    """
    if device == "cuda":
        lengths = tuple(256 * 2**i for i in range(3 if scale is Scale.TINY else 6))
        return EfficiencySettings(lengths, 1, 8, 64, torch.bfloat16, 1.0, 50)
    if scale is Scale.TINY:
        return EfficiencySettings((256, 512, 1024), 1, 4, 16, torch.float32, 0.2, 10)
    lengths = tuple(256 * 2**i for i in range(6))
    return EfficiencySettings(lengths, 1, 4, 16, torch.float32, 0.4, 30)
