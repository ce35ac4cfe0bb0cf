"""An encoder whose tokens are pooled into class logits, in two ways at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cab import Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention, start_as_copy, start_as_similarity
from tasks.backbones.positions import sinusoid
from tasks.backbones.readout import EfficientProbing, MeanPooling
from tasks.backbones.transformer import SelfAttentionLayer


class Logits(NamedTuple):
    """What the two readouts say."""

    mean: Tensor
    """(B, classes) of mean pooling, which the encoder is trained through"""
    probe: Tensor
    """(B, classes) of efficient probing; its gradient stops at the encoder's tokens"""


class PooledEncoder(nn.Module):
    """Pre-norm noncausal layers, a final norm and both readouts.

    Attention starts as likeness (one orthogonal matrix for queries and keys) and values start
    passed through, or the circuits that these tasks need do not form within a short run.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        dim: int,
        heads: int,
        layers: int,
        length: int,
        classes: int,
        expansion: int = 2,
        queries: int = 8,
    ) -> None:
        """Build the stack.

        Args:
            slots: gives the attention modules.
            dim: width of a token.
            heads: heads of every slot.
            layers: number of layers.
            length: longest sequence.
            classes: number of classes.
            expansion: of the feed-forward layers, hidden width by ``dim``.
            queries: of the efficient probe.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=layers, max_length=length),
                Pattern.NONCAUSAL_SELF,
                dim,
                heads,
                expansion=expansion,
            )
            for index in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.mean = MeanPooling(dim, classes)
        self.probe = EfficientProbing(dim, classes, queries)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                start_as_similarity(module)
                start_as_copy(module)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, grid: tuple[int, ...] | None = None
    ) -> Logits:
        """Classify.

        Args:
            x: (B, N, E) embedded tokens.
            mask: (B, N) bool, True where a token is valid; at least one of a row is.
            grid: shape of the grid that the tokens lie on, row-major.
        """
        for layer in self.layers:
            x = layer(x, mask, grid)
        x = self.norm(x)
        return Logits(self.mean(x, mask), self.probe(x.detach(), mask))


class TokenClassifier(nn.Module):
    """Embeddings of ids, trained positions that start as sinusoids, and a `PooledEncoder`."""

    def __init__(
        self,
        slots: Slots,
        *,
        tokens: int,
        classes: int,
        length: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int = 2,
        queries: int = 8,
        position_base: float = 100.0,
        position_amplitude: float = 1.0,
    ) -> None:
        """Build the stack; the arguments are those of `PooledEncoder` and of `sinusoid`."""
        super().__init__()
        self.token = nn.Embedding(tokens, dim)
        start = sinusoid(length, dim, position_base, position_amplitude)
        self.position = nn.Parameter(start)
        self.encoder = PooledEncoder(
            slots,
            dim=dim,
            heads=heads,
            layers=layers,
            length=length,
            classes=classes,
            expansion=expansion,
            queries=queries,
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Logits:
        """(B, N) ids and a (B, N) mask of the valid ones to logits."""
        return self.encoder(self.token(tokens) + self.position[: tokens.shape[1]], mask)


def valid_tokens(lengths: Tensor, longest: int) -> Tensor:
    """(B, longest) bool: the first ``lengths[b]`` tokens of row b."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
