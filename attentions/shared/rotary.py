"""Rotary position codes (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor

_BASE = 10000.0


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """Vectors turned by angles that grow with their position: products of two depend on the
    difference of their positions alone.

    Dimensions n and n + D // 2 are turned by position · 10000^(-2 n / D); the last dimension of an
    odd D stays.

    Args:
        x: (..., L, D), in float32 at least.
        positions: (L,) numbers.
    """
    half = x.shape[-1] // 2
    rates = _BASE ** (-torch.arange(half, device=x.device, dtype=x.dtype) / max(1, half))
    angles = positions.to(x.dtype)[:, None] * rates
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine, rest], dim=-1)
