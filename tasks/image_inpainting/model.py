"""Hidden patches ask the visible ones.

A patch is all numbers of its pixels, as their difference to the mean colour of what is visible. To
that mean the model predicts the difference, so without attention it answers the mean.
"""

from __future__ import annotations

from torch import Tensor, nn

from cab import Batch, Slots
from tasks.backbones.place_reader import PlaceReader
from tasks.problems.hidden import placed
from tasks.upsampling.model import position_code
from tasks.upsampling.positions import pixel_centres

CHANNELS = 3

COLOUR_DEVIATION = 0.25
"""Unit of colour differences inside the model, of the range 0..1"""

SHARPNESS = 1.5


class PatchReader(nn.Module):
    """`PlaceReader` over the patches of a square picture."""

    codes: Tensor

    def __init__(
        self, slots: Slots, *, grid: int, patch: int, dim: int, heads: int, layers: int
    ) -> None:
        """``grid`` x ``grid`` patches of ``patch`` x ``patch`` pixels."""
        super().__init__()
        self.register_buffer("codes", position_code(pixel_centres(grid, grid), dim, grid))
        numbers = CHANNELS * patch**2
        self.reader = PlaceReader(
            slots,
            content=numbers,
            outputs=numbers,
            dim=dim,
            heads=heads,
            layers=layers,
            max_length=grid**2,
            sharpness=SHARPNESS,
        )

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, C) patches in 0..1 (not cut) for a batch of `hide`; its target is not read."""
        known = batch["known"]
        mean = mean_patch(known)
        answer = self.reader(
            self.codes[batch["asked_places"]],
            self.codes[batch["known_places"]],
            (known - mean) / COLOUR_DEVIATION,
            placed(batch),
        )
        return mean + COLOUR_DEVIATION * answer


def mean_patch(known: Tensor) -> Tensor:
    """(B, 1, C) patch of the mean colour of patches (B, L, C)."""
    colours = known.unflatten(2, (CHANNELS, -1))
    return colours.mean((1, 3), keepdim=True).expand(-1, 1, -1, colours.shape[3]).flatten(2)
