"""Frames as a stream: every token is a frame of mel bands and where it stands."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Slots
from tasks.backbones.positions import sinusoid
from tasks.backbones.stream import Stream

SHARPNESS = 1.5
"""See `tasks.backbones.stream.Stream`"""

POSITION_BASE = 100.0
"""Of the places' sinusoids: neighbours are easy to tell apart"""


class FrameStream(nn.Module):
    """Mel frames to what will be said a few frames later, as the difference to the latest frame."""

    place: Tensor

    def __init__(
        self, slots: Slots, *, bands: int, length: int, dim: int, heads: int, layers: int,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.content = nn.Linear(bands, dim)
        self.register_buffer("place", sinusoid(length, dim, POSITION_BASE), persistent=False)
        self.stream = Stream(
            slots, dim=dim, heads=heads, layers=layers, length=length, outputs=bands,
            sharpness=SHARPNESS, dropout=dropout,
        )  # fmt: skip

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, bands) standardised frames to (B, T, bands) predictions, each from the frames up
        to its place.
        """
        tokens = self.content(frames) + self.place[: frames.shape[1]]
        return frames + self.stream(tokens)


@torch.no_grad()
def continued(model: FrameStream, frames: Tensor, known: int, ahead: int) -> Tensor:
    """Frames after the first ``known`` are the model's own predictions, each from those before.

    Args:
        model: trained, in eval mode.
        frames: (B, T, bands).
        known: frames that are kept, at least ``ahead``.
        ahead: frames between the latest one and the one that is predicted.
    """
    made = frames.clone()
    for place in range(known, frames.shape[1]):
        made[:, place] = model(made[:, : place - ahead + 1])[:, -1]
    return made
