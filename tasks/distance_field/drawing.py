"""Pictures of slices through a field of distances."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FARTHEST = 0.3
"""Distance that is white, in sides of a shape"""

BAND = 0.05
"""Distance from one contour to the next"""

_NEAR, _FAR = np.array([70, 10, 60]), np.array([255, 255, 255])
_DARKER = 0.88
"""Of every second band"""


def slice_places(side: int) -> Tensor:
    """(side^2, 3) places of an upright slice through the middle, row by row from its top."""
    steps = (torch.arange(side) + 0.5) / side - 0.5
    up, across = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    return torch.stack([across, up, torch.zeros_like(up)], dim=-1).flatten(0, 1)


def draw_slice(distances: Tensor, side: int) -> NDArray[np.uint8]:
    """(side, side, 3) picture of (side^2,) distances: dark at the surface, with contours."""
    field = distances.view(side, side).clamp(0, FARTHEST).double().numpy()
    share = (field / FARTHEST)[..., None]
    colours = (1 - share) * _NEAR + share * _FAR
    dark = np.floor(field / BAND) % 2 == 1
    return np.rint(np.where(dark[..., None], _DARKER * colours, colours)).astype(np.uint8)
