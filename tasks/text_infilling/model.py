"""Hidden characters ask the visible ones.

A visible character's token is the code of its place + a linear map of its embedding; slots are told
the places as positions.
"""

from __future__ import annotations

from torch import Tensor, nn

from cab import Batch, Slots
from tasks.backbones.place_reader import PlaceReader
from tasks.backbones.positions import sinusoid
from tasks.problems.hidden import placed

POSITION_BASE, POSITION_AMPLITUDE = 100.0, 2.0

SHARPNESS = 1.0


class CharacterReader(nn.Module):
    """`PlaceReader` over the characters of a window."""

    codes: Tensor

    def __init__(
        self, slots: Slots, *, characters: int, length: int, dim: int, heads: int, layers: int
    ) -> None:
        """Windows of ``length``, of a vocabulary of so many ``characters``."""
        super().__init__()
        codes = sinusoid(length, dim, POSITION_BASE, POSITION_AMPLITUDE)
        self.register_buffer("codes", codes)
        self.embedding = nn.Embedding(characters, dim)
        self.reader = PlaceReader(
            slots,
            content=dim,
            outputs=characters,
            dim=dim,
            heads=heads,
            layers=layers,
            max_length=length,
            sharpness=SHARPNESS,
        )

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, V) logits for a batch of `hide`; its target is not read."""
        asked, known = self.codes[batch["asked_places"]], self.codes[batch["known_places"]]
        content = self.embedding(batch["known"])
        logits: Tensor = self.reader(asked, known, content, placed(batch))
        return logits
