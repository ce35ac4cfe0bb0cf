"""Position encodings."""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoid(length: int, dim: int, base: float = 1e4, amplitude: float = 1.0) -> Tensor:
    """(length, dim) sines and cosines of geometrically spaced frequencies (Vaswani et al. 2017).

    A smaller ``base`` or larger ``amplitude`` makes neighbouring positions easier to tell apart.
    """
    position = torch.arange(length, dtype=torch.float32)[:, None]
    angle = position / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    return amplitude * torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :dim]
