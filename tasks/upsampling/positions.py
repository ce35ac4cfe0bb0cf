"""Pictures at several sizes, and what is asked of them: colours at positions between the pixels.

A picture of low x low pixels spans the square [0, low]^2, and its pixel in row i and column j has
its centre at (i + 1/2, j + 1/2). The same picture of S x S pixels spans the same square, so the
centres of its pixels lie between those of the small one, at a scale factor S / low, whole or not.

Positions are (row, column) in pixels of the small picture, float.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cab import Batch
from tasks.super_resolution.resampling import resized


def pyramid(crops: Tensor, low: int, sides: Sequence[int]) -> Mapping[int, Tensor]:
    """(N, 3, H, W) uint8 at ``low`` and at all ``sides``, each (N, 3, S, S) uint8.

    Every size is filtered from the crop itself, bicubic with antialiasing.
    """
    return {side: resized(crops, side) for side in sorted({low, *sides})}


def pixel_centres(side: int, low: int) -> Tensor:
    """(S^2, 2) positions of the centres of S x S pixels, row by row."""
    centre = (torch.arange(side) + 0.5) * (low / side)
    return torch.cartesian_prod(centre, centre)


def ask(
    pictures: Mapping[int, Tensor],
    rows: Tensor,
    low: int,
    side: int,
    count: int,
    generator: torch.Generator,
) -> Batch:
    """Ask (B,) ``rows`` of the pictures for ``count`` pixels of the version of ``side`` pixels.

    Pixels are drawn uniformly without replacement and stand in the order of rows and columns.

    Returns:
        ``pixels`` (B, low^2, 3) in 0..1 row by row, ``positions`` (B, M, 2), ``cell`` (B, M, 1) the
        side of the pixel asked for, in pixels of the small picture, ``target`` (B, M, 3) in 0..1.
    """
    chosen = torch.rand(len(rows), side * side, generator=generator).topk(count).indices
    chosen = chosen.sort().values
    target = pictures[side][rows].flatten(2).transpose(1, 2)
    return {
        "pixels": pictures[low][rows].flatten(2).transpose(1, 2).float() / 255,
        "positions": pixel_centres(side, low)[chosen],
        "cell": torch.full((len(rows), count, 1), low / side),
        "target": target.gather(1, chosen[..., None].expand(-1, -1, 3)).float() / 255,
    }
