"""Places in space ask points of a surface.

A known point is the code of its place + a linear map of its coordinates; a query is the code of its
place. A slot is told no positions: points are a set.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Slots
from tasks.backbones.place_reader import PlaceReader

LONGEST_PERIOD, OCTAVES = 2.0, 3.0
"""Of the code, in sides of a shape, and how many times it is halved down to the shortest period"""

SHARPNESS = 1.0

UNIT = 0.5
"""Of distances and coordinates inside the model, in sides of a shape"""


def space_code(places: Tensor, dim: int) -> Tensor:
    """(..., dim) sines and cosines of the coordinates of places (..., 3); what is left of the width
    is zero.

    Raises:
        ValueError: the width has no room for one period of each coordinate.
    """
    count = dim // 6
    if not count:
        raise ValueError(f"a code of three coordinates takes a width of 6 at least, not {dim}")
    octaves = torch.linspace(0, OCTAVES, count, device=places.device)
    angle = 2 * math.pi / LONGEST_PERIOD * places[..., None] * 2**octaves
    code = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    return F.pad(code, (0, dim - 6 * count))


class PointReader(nn.Module):
    """`PlaceReader` over points in space."""

    def __init__(self, slots: Slots, *, max_length: int, dim: int, heads: int, layers: int) -> None:
        """See `PlaceReader`."""
        super().__init__()
        self.dim = dim
        self.reader = PlaceReader(
            slots,
            content=3,
            outputs=1,
            dim=dim,
            heads=heads,
            layers=layers,
            max_length=max_length,
            sharpness=SHARPNESS,
        )

    def forward(self, batch: Batch) -> Tensor:
        """(B, M) distances at the places asked for, of a batch of `sampling.draw`."""
        known, asked = batch["known"], batch["asked"]
        answer = self.reader(space_code(asked, self.dim), space_code(known, self.dim), known / UNIT)
        return UNIT * answer[..., 0]
