"""Numbers as an integer kernel would see them: rounded to a grid, and kept as floating point.

The gradient passes a rounding as if it were not there (straight-through estimator).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def rounded(x: Tensor, largest: int, dims: tuple[int, ...]) -> Tensor:
    """Multiples of max|x| / ``largest``, the maximum taken over ``dims``; zeros stay zeros.

    Args:
        x: any shape; numbers of both signs are on a symmetric grid (INT8: 127, INT4: 7), and where
            none is negative on an unsigned one (255, 15).
        largest: integer that the maximum becomes.
        dims: that share a scale.
    """
    scale = x.detach().abs().amax(dims, keepdim=True) / largest
    step = scale.where(scale > 0, 1.0)
    return x + ((x.detach() / step).round() * step - x.detach())


def rounded_in_groups(x: Tensor, largest: int, size: int) -> Tensor:
    """Tokens (.., L, D), with a scale for each ``size`` neighbours; the last may be fewer."""
    length = x.shape[-2]
    padded = F.pad(x, (0, 0, 0, -length % size))
    groups = padded.unflatten(-2, (-1, size))
    return rounded(groups, largest, (-2, -1)).flatten(-3, -2)[..., :length, :]
