"""Hidden frames ask the visible ones.

A frame's token is the code of its place + a linear map of its bands; slots are told the places as
positions.
"""

from __future__ import annotations

from torch import Tensor, nn

from cab import Batch, Slots
from tasks.backbones.place_reader import PlaceReader
from tasks.backbones.positions import sinusoid
from tasks.problems.hidden import placed

POSITION_BASE = 100.0

SHARPNESS = 1.5


class FrameReader(nn.Module):
    """`PlaceReader` over the frames of a window."""

    codes: Tensor

    def __init__(
        self, slots: Slots, *, frames: int, bands: int, dim: int, heads: int, layers: int
    ) -> None:
        """Windows of ``frames`` frames of ``bands`` numbers."""
        super().__init__()
        self.register_buffer("codes", sinusoid(frames, dim, POSITION_BASE))
        self.reader = PlaceReader(
            slots,
            content=bands,
            outputs=bands,
            dim=dim,
            heads=heads,
            layers=layers,
            max_length=frames,
            sharpness=SHARPNESS,
        )

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, bands) frames for a batch of `hide`; its target is not read."""
        asked, known = self.codes[batch["asked_places"]], self.codes[batch["known_places"]]
        answer: Tensor = self.reader(asked, known, batch["known"], placed(batch))
        return answer
