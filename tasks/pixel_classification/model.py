"""The backbone: every pixel of a picture is a token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Slots
from tasks.backbones.pooled_encoder import Logits, PooledEncoder
from tasks.backbones.positions import sinusoid


def sinusoid_grid(side: int, dim: int, base: float, amplitude: float) -> Tensor:
    """(side^2, dim): half the features tell the row, half the column."""
    line = sinusoid(side, dim // 2, base, amplitude)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


class PixelClassifier(nn.Module):
    """Grey level times a trained vector, plus trained positions that start as sinusoids of row and
    column, into a `PooledEncoder`.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        side: int,
        classes: int,
        dim: int,
        heads: int,
        layers: int,
        position_base: float = 30.0,
        position_amplitude: float = 1.0,
    ) -> None:
        super().__init__()
        self.grid = (side, side)
        self.grey = nn.Parameter(torch.randn(dim))
        start = sinusoid_grid(side, dim, position_base, position_amplitude)
        self.position = nn.Parameter(start)
        self.encoder = PooledEncoder(
            slots, dim=dim, heads=heads, layers=layers, length=side * side, classes=classes
        )

    def forward(self, pixels: Tensor) -> Logits:
        """(B, side^2) standardised grey levels, row by row, to logits."""
        return self.encoder(pixels[..., None] * self.grey + self.position, grid=self.grid)
