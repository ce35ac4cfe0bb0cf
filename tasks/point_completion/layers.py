"""Layers of PoinTr (Yu et al. 2021): pre-norm Transformer layers, the first of which also look at
the nearest tokens in space.

Shapes: B batch, T point proxies, M queries, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Layer, Pattern
from tasks.backbones.multihead import MultiHeadAttention
from tasks.backbones.transformer import FeedForward
from tasks.point_completion.geometry import take

NEIGHBOURS = 8
EXPANSION = 2
SLOPE = 0.2


class TokenNorm(nn.BatchNorm1d):
    """Batch norm of each channel over all tokens of all rows: (B, L, C) to (B, L, C)."""

    def forward(self, input: Tensor) -> Tensor:
        """See the class."""
        return super().forward(input.flatten(0, 1)).view_as(input)


class TokenMlp(nn.Sequential):
    """Two linear layers with a batch norm and a leaky ReLU between them, token by token."""

    def __init__(self, channels: int, hidden: int, result: int) -> None:
        super().__init__(
            nn.Linear(channels, hidden),
            TokenNorm(hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, result),
        )


class GeometryAware(nn.Module):
    """Merges what attention mixed with an edge convolution over the nearest tokens (section 3.4).

    A path around the attention slot: with ``none`` a token still sees its neighbours.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.edge = nn.Linear(2 * dim, dim)
        self.merge = nn.Linear(2 * dim, dim)

    def forward(self, mixed: Tensor, x: Tensor, source: Tensor, index: Tensor) -> Tensor:
        """Merge.

        Args:
            mixed: (B, L, E) from attention.
            x: (B, L, E) the layer's input. source: (B, S, E) where the neighbours are.
            index: (B, L, k) their numbers.

        Returns:
            (B, L, E)
        """
        found = take(source, index)
        own = x[:, :, None].expand_as(found)
        edges = F.leaky_relu(self.edge(torch.cat([found - own, own], dim=-1)), SLOPE)
        return self.merge(torch.cat([mixed, edges.amax(2)], dim=-1))


class EncoderLayer(nn.Module):
    """Self attention and feed-forward over point proxies."""

    def __init__(
        self,
        layer: Layer,
        dim: int,
        heads: int,
        *,
        geometry_aware: bool,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            layer,
            Pattern.NONCAUSAL_SELF,
            dim,
            heads,
        )
        self.neighbours = GeometryAware(dim) if geometry_aware else None
        self.feed_forward = FeedForward(dim, EXPANSION)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """(B, T, E) to (B, T, E); ``index`` (B, T, k) the nearest proxies, where they are used."""
        normed = self.attention_norm(x)
        mixed = self.attention(normed)
        if self.neighbours is not None:
            assert index is not None
            mixed = self.neighbours(mixed, normed, normed, index)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x))


class DecoderLayer(nn.Module):
    """Self attention over queries, cross attention to the proxies, feed-forward."""

    def __init__(
        self,
        layer: Layer,
        dim: int,
        heads: int,
        *,
        geometry_aware: bool,
    ) -> None:
        super().__init__()

        def attention(pattern: Pattern) -> MultiHeadAttention:
            return MultiHeadAttention(
                layer,
                pattern,
                dim,
                heads,
            )

        self.attention = attention(Pattern.NONCAUSAL_SELF)
        self.cross_attention = attention(Pattern.NONCAUSAL_CROSS)
        self.neighbours = GeometryAware(dim) if geometry_aware else None
        self.cross_neighbours = GeometryAware(dim) if geometry_aware else None
        self.feed_forward = FeedForward(dim, EXPANSION)
        self.attention_norm = nn.LayerNorm(dim)
        self.cross_attention_norm = nn.LayerNorm(dim)
        self.memory_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        index: Tensor | None = None,
        cross_index: Tensor | None = None,
    ) -> Tensor:
        """Refine the queries.

        Args:
            x: (B, M, E). memory: (B, T, E).
            index: (B, M, k) the nearest queries. cross_index: (B, M, k) the nearest proxies; both
                where they are used.

        Returns:
            (B, M, E)
        """
        normed = self.attention_norm(x)
        mixed = self.attention(normed)
        if self.neighbours is not None:
            assert index is not None
            mixed = self.neighbours(mixed, normed, normed, index)
        x = x + mixed
        normed, source = self.cross_attention_norm(x), self.memory_norm(memory)
        mixed = self.cross_attention(normed, source)
        if self.cross_neighbours is not None:
            assert cross_index is not None
            mixed = self.cross_neighbours(mixed, normed, source, cross_index)
        x = x + mixed
        return x + self.feed_forward(self.feed_forward_norm(x))
