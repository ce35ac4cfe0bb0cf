"""The denoising U-Net of SR3 (Saharia et al. 2021, section 2.3) with attention slots.

In the form of SR3's usual implementation, with which CAB measured: residual blocks and skips as in
DDPM (Ho et al. 2020), one embedding of the continuous noise level added in every block.

Shapes: B pictures, C channels, S pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import AttentionContext, Layer, Pattern, Slots

_COLOURS = 3

_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class UNetSizes:
    """Geometry of the network."""

    side: int
    """Of the pictures, in pixels, divisible by two once for every multiplier but the first"""
    channels: int
    multipliers: tuple[int, ...]
    """Of ``channels``, per level; each level has half the side of the one before"""
    blocks: int
    """Residual blocks per level on the way down; one more on the way up"""
    attended: tuple[int, ...]
    """Sides of the levels whose blocks attend; the middle of the network always does"""
    heads: int
    groups: int
    """Of the group norms"""
    dropout: float

    @property
    def sides(self) -> tuple[int, ...]:
        """Of the levels, in pixels."""
        return tuple(self.side >> level for level in range(len(self.multipliers)))

    @property
    def longest(self) -> int:
        """Most tokens that a slot sees."""
        return max(set(self.attended) & set(self.sides) | {self.sides[-1]}) ** 2

    @property
    def slots(self) -> int:
        """Number of attention modules."""
        return len(set(self.attended) & set(self.sides)) * (2 * self.blocks + 1) + 1


class NoiseLevelEmbedding(nn.Module):
    """Sinusoids of the noise level (WaveGrad, Chen et al. 2021) and two layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.Sequential(_linear(dim, 4 * dim), nn.SiLU(), _linear(4 * dim, dim))

    def forward(self, level: Tensor) -> Tensor:
        """(B,) in 0..1 to (B, dim)."""
        half = self.dim // 2
        frequency = torch.exp(-math.log(1e4) * torch.arange(half, device=level.device) / half)
        angle = level[:, None] * frequency
        return self.layers(torch.cat([angle.sin(), angle.cos()], dim=-1))


class ResidualBlock(nn.Module):
    """Two normalised convolutions around the noise level, and a skip."""

    def __init__(self, taken: int, given: int, level_dim: int, sizes: UNetSizes) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(sizes.groups, taken)
        self.first = _convolution(taken, given, 3)
        self.level = _linear(level_dim, given)
        self.second_norm = nn.GroupNorm(sizes.groups, given)
        self.dropout = nn.Dropout(sizes.dropout)
        self.second = _convolution(given, given, 3)
        self.skip = nn.Identity() if taken == given else _convolution(taken, given, 1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, S, S) and (B, E) to (B, C', S, S)."""
        y = self.first(F.silu(self.first_norm(x))) + self.level(level)[:, :, None, None]
        return self.second(self.dropout(F.silu(self.second_norm(y)))) + self.skip(x)


class PixelAttention(nn.Module):
    """Every pixel of a feature map attends to all; projections as 1 x 1 convolutions."""

    def __init__(self, layer: Layer, channels: int, sizes: UNetSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm = nn.GroupNorm(sizes.groups, channels)
        self.project = _linear(channels, 3 * channels, bias=False)
        self.core = layer(
            Pattern.NONCAUSAL_SELF,
            heads=sizes.heads,
            head_dim=channels // sizes.heads,
            embed_dim=channels,
        )
        self.output = _linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to the same."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.project(tokens).chunk(3, dim=-1)
        )
        context = AttentionContext(
            query_input=tokens, key_input=tokens, query_grid=(x.shape[2], x.shape[3])
        )
        mixed = self.output(self.core(q, k, v, context).transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])


class Block(nn.Module):
    """A residual block, with attention behind it or not."""

    def __init__(self, residual: ResidualBlock, attention: PixelAttention | None) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, S, S) and (B, E) to (B, C', S, S)."""
        x = self.residual(x, level)
        return x if self.attention is None else self.attention(x)


class UNet(nn.Module):
    """Predicts the noise in a picture, given the enlarged one and the noise level."""

    def __init__(self, slots: Slots, sizes: UNetSizes) -> None:
        super().__init__()
        self._slots, self._sizes, self._attentions = slots, sizes, 0
        channels = [sizes.channels * multiplier for multiplier in sizes.multipliers]
        self.level = NoiseLevelEmbedding(sizes.channels)
        self.entry = _convolution(2 * _COLOURS, sizes.channels, 3)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        width, skipped = sizes.channels, [sizes.channels]
        for depth, side in enumerate(sizes.sides):
            stage = nn.ModuleList()
            for _ in range(sizes.blocks):
                stage.append(self._block(width, channels[depth], side))
                width = channels[depth]
                skipped.append(width)
            self.down.append(stage)
            if side != sizes.sides[-1]:
                self.shrink.append(_convolution(width, width, 3, stride=2))
                skipped.append(width)
        side = sizes.sides[-1]
        self.middle = nn.ModuleList(
            [self._block(width, width, side, True), self._block(width, width, side, False)]
        )
        for depth, side in reversed(list(enumerate(sizes.sides))):
            stage = nn.ModuleList()
            for _ in range(sizes.blocks + 1):
                stage.append(self._block(width + skipped.pop(), channels[depth], side))
                width = channels[depth]
            self.up.append(stage)
            if depth:
                self.grow.append(_convolution(width, width, 3))
        self.norm = nn.GroupNorm(sizes.groups, width)
        self.readout = _convolution(width, _COLOURS, 3)

    def forward(self, enlarged: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
        """The noise.

        Args:
            enlarged: (B, 3, S, S) the condition.
            noisy: (B, 3, S, S) signal times ``level`` plus noise times sqrt(1 - level^2).
            level: (B,).
        """
        embedded = self.level(level)
        x = self.entry(torch.cat([enlarged, noisy], dim=1))
        skipped = [x]
        for depth, stage in enumerate(self.down):
            if depth:
                x = self.shrink[depth - 1](x)
                skipped.append(x)
            for block in _blocks(stage):
                x = block(x, embedded)
                skipped.append(x)
        for block in _blocks(self.middle):
            x = block(x, embedded)
        for depth, stage in enumerate(self.up):
            if depth:
                x = self.grow[depth - 1](F.interpolate(x, scale_factor=2.0, mode="nearest"))
            for block in _blocks(stage):
                x = block(torch.cat([x, skipped.pop()], dim=1), embedded)
        return self.readout(F.silu(self.norm(x)))

    def _block(self, taken: int, given: int, side: int, attends: bool | None = None) -> Block:
        """``attends``: None where the side decides."""
        sizes = self._sizes
        residual = ResidualBlock(taken, given, sizes.channels, sizes)
        if not (side in sizes.attended if attends is None else attends):
            return Block(residual, None)
        layer = self._slots.layer(self._attentions, of=sizes.slots, max_length=side**2)
        attention = PixelAttention(layer, given, sizes)
        self._attentions += 1
        return Block(residual, attention)


def _blocks(stage: nn.Module) -> Iterator[Block]:
    for block in stage.children():
        assert isinstance(block, Block)
        yield block


def _convolution(taken: int, given: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return _started(nn.Conv2d(taken, given, kernel, stride, padding=kernel // 2))


def _linear(taken: int, given: int, bias: bool = True) -> nn.Linear:
    return _started(nn.Linear(taken, given, bias))


def _started(layer: _Layer) -> _Layer:
    """Orthogonal weights and no bias, as in SR3's usual implementation."""
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
