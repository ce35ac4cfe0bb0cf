"""Bicubic resampling of 8-bit pictures, and the range that networks see.

The low-resolution pictures of SR3 and of its usual implementation are made with Pillow's bicubic
filter, which widens when it shrinks a picture (antialiasing); torch's, with the same option, is
the same filter.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def resized(pictures: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) uint8 to (N, 3, side, side) uint8."""
    if pictures.shape[-2:] == (side, side):
        return pictures
    pixels = F.interpolate(
        pictures.float(), size=(side, side), mode="bicubic", align_corners=False, antialias=True
    )
    return _bytes(pixels)


def enlarged(pictures: Tensor, low: int) -> Tensor:
    """What is left of (N, 3, S, S) uint8 after shrinking to ``low`` pixels a side and enlarging
    again: the input of every model here.
    """
    return resized(resized(pictures, low), pictures.shape[-1])


def to_signal(pictures: Tensor) -> Tensor:
    """uint8 to float in -1..1."""
    return pictures.float() / 127.5 - 1


def to_pictures(signal: Tensor) -> Tensor:
    """Float in -1..1 to uint8; what lies outside is cut."""
    return _bytes((signal.float() + 1) * 127.5)


def _bytes(pixels: Tensor) -> Tensor:
    return pixels.round().clamp(0, 255).to(torch.uint8)
