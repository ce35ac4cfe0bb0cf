"""A Transformer over the patches of a picture, which predicts what bicubic enlargement lost."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Pattern, Slots
from tasks.backbones.positions import sinusoid
from tasks.backbones.transformer import SelfAttentionLayer

RESIDUAL_SCALE = 0.1
"""About the standard deviation of what bicubic enlargement by 4 loses, in signals of -1..1: a
readout of order one then fits."""


class PatchTransformer(nn.Module):
    """The encoder of ViT (Dosovitskiy et al. 2021) with a readout per patch.

    A patch of the enlarged picture is one token and is read out as the same patch of the residual
    (as in VDSR, Kim et al. 2016). Nothing but attention carries anything from a patch to another:
    there are no convolutions, and with the control ``none`` every patch is enlarged alone. The
    network starts as bicubic enlargement.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        side: int,
        patch: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
    ) -> None:
        """Build the encoder.

        Args:
            slots: gives the attention modules.
            side: of a picture, in pixels, a multiple of ``patch``.
            patch: side of a patch.
            dim: width of a token, a multiple of four.
            heads: heads of every slot.
            layers: number of layers.
            expansion: of the feed-forward layers, hidden width by ``dim``.
        """
        super().__init__()
        self.patch = patch
        self.grid = (side // patch, side // patch)
        self.embedding = nn.Linear(3 * patch**2, dim)
        self.position = nn.Parameter(_grid_sinusoid(*self.grid, dim))
        self.layers = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=layers, max_length=self.grid[0] * self.grid[1]),
                Pattern.NONCAUSAL_SELF,
                dim,
                heads,
                expansion=expansion,
            )
            for index in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, 3 * patch**2)
        nn.init.zeros_(self.readout.weight)

    def forward(self, enlarged: Tensor) -> Tensor:
        """(B, 3, S, S) signals of the enlarged pictures to (B, 3, S, S) of the restored ones."""
        tokens = F.pixel_unshuffle(enlarged, self.patch).flatten(2).transpose(1, 2)
        x = self.embedding(tokens) + self.position
        for layer in self.layers:
            x = layer(x, grid=self.grid)
        residual = self.readout(self.norm(x)).transpose(1, 2).unflatten(2, self.grid)
        return enlarged + RESIDUAL_SCALE * F.pixel_shuffle(residual, self.patch)


def _grid_sinusoid(rows: int, columns: int, dim: int) -> Tensor:
    """(rows * columns, dim): the row's sinusoid in one half of the width, the column's in the
    other.
    """
    row, column = sinusoid(rows, dim // 2), sinusoid(columns, dim // 2)
    shape = (rows, columns, -1)
    both = torch.cat([row[:, None].expand(shape), column[None].expand(shape)], dim=-1)
    return both.flatten(0, 1)
