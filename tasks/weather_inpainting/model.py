"""Hidden blocks ask the visible ones.

A block is some hours of one variable. The code of its place is an embedding of the variable + the
code of its hours in the window + a linear map of the calendar there. Slots are told the hours as
times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Slots
from tasks.backbones.place_reader import PlaceReader
from tasks.backbones.positions import sinusoid
from tasks.problems.hidden import taken

POSITION_BASE = 100.0

SHARPNESS = 1.0

DROPOUT = 0.05


class BlockReader(nn.Module):
    """`PlaceReader` over blocks of a window of several series."""

    codes: Tensor

    def __init__(
        self,
        slots: Slots,
        *,
        variables: int,
        blocks: int,
        hours: int,
        features: int,
        dim: int,
        heads: int,
        layers: int,
    ) -> None:
        """Windows of ``variables`` x ``blocks`` blocks of ``hours``, with so many calendar
        ``features``.
        """
        super().__init__()
        self.register_buffer("codes", sinusoid(blocks, dim, POSITION_BASE))
        self.variable = nn.Parameter(torch.randn(variables, dim))
        self.calendar = nn.Linear(features, dim)
        self.hours = hours
        self.reader = PlaceReader(
            slots,
            content=hours,
            outputs=hours,
            dim=dim,
            heads=heads,
            layers=layers,
            max_length=variables * blocks,
            sharpness=SHARPNESS,
            dropout=DROPOUT,
        )

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, hours) blocks for a batch of `windows.draw`; its target is not read."""
        when = self.codes + self.calendar(batch["calendar"])
        place = (when[:, :, None] + self.variable).flatten(1, 2)
        asked, known = batch["asked_places"], batch["known_places"]
        context = AttentionContext(query_times=self._hours(asked), key_times=self._hours(known))
        answer: Tensor = self.reader(
            taken(place, asked), taken(place, known), batch["known"], context
        )
        return answer

    def _hours(self, places: Tensor) -> Tensor:
        """(B, N) first hours of blocks, from the window's begin."""
        return (self.hours * (places // len(self.variable))).float()
