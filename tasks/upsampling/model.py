"""Queries at continuous positions that read the pixels of a small picture.

A pixel's token is the code of its position + a linear map of its colour; a query is the code of its
position + a linear map of the size of the pixel it stands for. A query sees no colour but the
picture's mean, to which the model predicts the difference, and it knows neither its neighbours nor
any interpolated value: every detail has to come through attention. There is no encoder of the
small picture and no convolution.

For every mechanism alike, attention starts as nearness: one orthogonal matrix, times `SHARPNESS`,
projects queries and keys, and values pass through.

Contexts carry the pixels' grid. The contract's positions are integers, so those of the queries are
in their tokens alone.

Shapes: B batch, L pixels, M queries, E width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Pattern, Slots
from tasks.backbones.context_layer import ContextLayer, looking_up
from tasks.upsampling.positions import pixel_centres

SHARPNESS = 1.5
"""Factor of the query and of the key projection at the start"""

SHORTEST_PERIOD, PERIODS = 2.0, 4.0
"""Shortest period of the position code in pixels of the small picture, and the longest one in
sides of it"""

COLOUR_DEVIATION = 0.25
"""Unit of colour differences inside the model, of the range 0..1"""


def position_code(positions: Tensor, dim: int, low: int) -> Tensor:
    """(..., dim) sines and cosines of positions (..., 2), a half for rows and one for columns."""
    count = dim // 4
    longest = PERIODS * low
    ratio = math.log(longest / SHORTEST_PERIOD) / max(1, count - 1)
    index = torch.arange(count, device=positions.device)
    rates = 2 * math.pi / SHORTEST_PERIOD * torch.exp(-ratio * index)
    angle = positions[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class PixelReader(nn.Module):
    """Cross-attention layers from queries to pixels."""

    centres: Tensor

    def __init__(
        self,
        slots: Slots,
        *,
        low: int,
        queries: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
    ) -> None:
        super().__init__()
        self.low, self.dim = low, dim
        self.register_buffer("centres", position_code(pixel_centres(low, low), dim, low))
        self.colour = nn.Linear(3, dim)
        self.cell = nn.Linear(1, dim)
        self.layers = looking_up(
            slots,
            Pattern.NONCAUSAL_CROSS,
            layers,
            dim,
            heads,
            max_length=max(low * low, queries),
            expansion=expansion,
        )
        for layer in self.layers:
            assert isinstance(layer, ContextLayer)
            with torch.no_grad():
                layer.attention.query.weight.mul_(SHARPNESS)
                layer.attention.key.weight.mul_(SHARPNESS)
        self.source_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, 3)

    def forward(self, batch: Batch) -> Tensor:
        """(B, M, 3) colours in 0..1 (not cut) for a batch of `positions.ask`."""
        pixels = batch["pixels"]
        mean = pixels.mean(1, keepdim=True)
        source = self.centres + self.colour((pixels - mean) / COLOUR_DEVIATION)
        source = self.source_norm(source)
        x = position_code(batch["positions"], self.dim, self.low) + self.cell(batch["cell"])
        context = AttentionContext(key_grid=(self.low, self.low))
        for layer in self.layers:
            x = layer(x, source, context)
        return mean + COLOUR_DEVIATION * self.readout(self.norm(x))
