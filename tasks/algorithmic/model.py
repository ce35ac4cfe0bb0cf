"""The backbone: layers without norms, so that a number may be larger than any in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Layer, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention
from tasks.backbones.positions import sinusoid


class NormFreeLayer(nn.Module):
    """x + MLP([x, attention(x)]), with a ReLU: up to its biases the layer scales with its input.

    Back de Luca et al. have the same layer without the residual, which does not train in a short
    run.
    """

    def __init__(
        self,
        layer: Layer,
        dim: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            layer,
            Pattern.NONCAUSAL_SELF,
            dim,
            heads,
        )
        self.feed_forward = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, E) to (B, n, E)."""
        return x + self.feed_forward(torch.cat([x, self.attention(x)], dim=-1))


class ListTransformer(nn.Module):
    """Numbers and fixed sinusoidal positions in, one linear readout a function out."""

    position: Tensor
    scale: Tensor

    def __init__(
        self,
        slots: Slots,
        *,
        longest: int,
        output_scale: Tensor,
        dim: int,
        heads: int,
        layers: int,
    ) -> None:
        """Build the stack.

        Args:
            slots: gives the attention modules.
            longest: numbers in the longest list.
            output_scale: (F,) typical size of every function's target; outputs are multiples of it.
            dim: width of a token.
            heads: heads of every slot.
            layers: number of layers.
        """
        super().__init__()
        self.number = nn.Linear(1, dim)
        self.register_buffer("position", sinusoid(longest, dim, base=100.0), persistent=False)
        self.register_buffer("scale", output_scale, persistent=False)
        self.layers = nn.ModuleList(
            NormFreeLayer(slots.layer(index, of=layers, max_length=longest), dim, heads)
            for index in range(layers)
        )
        self.readout = nn.Linear(dim, len(output_scale))

    def forward(self, numbers: Tensor) -> Tensor:
        """(B, n) numbers to (B, n, F)."""
        x = self.number(numbers[..., None]) + self.position[: numbers.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.readout(x) * self.scale
