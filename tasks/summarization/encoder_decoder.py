"""What decoding, training and evaluation need of a model, whatever its layers are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cab import Batch, Pattern, Slots
from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer
from tasks.summarization.vocabulary import PADDING


@dataclass(frozen=True)
class Sizes:
    """Sizes of the layers."""

    dim: int
    heads: int
    layers: int
    """In the encoder and in the decoder."""
    expansion: int = 2
    dropout: float = 0.1


class EncoderDecoder(nn.Module, ABC):
    """Reads a source, and predicts each token of a target from those before it.

    Shapes: B batch, S source tokens, T target tokens, E width, V vocabulary.
    """

    @abstractmethod
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The encoded source (B, S, E) and its mask (B, S), True on tokens that are no padding."""

    @abstractmethod
    def decode(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, E) that predict the token after each of ``tokens`` (B, T).

        Padding stands behind the text, where a causal decoder cannot see it: no mask is needed.
        """

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """(..., E) to scores of all tokens (..., V)."""

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (N, V) and targets (N,) of the batch's N target tokens, teacher-forced."""
        target = batch["target"]
        features = self.decode(target[:, :-1], *self.encode(batch))
        wanted = target[:, 1:]
        scored = wanted != PADDING
        return self.logits(features[scored]), wanted[scored]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def layers(
    slots: Slots,
    sizes: Sizes,
    *,
    source_length: int,
    target_length: int,
    encoder: type[SelfAttentionLayer],
    decoder: type[CrossAttentionLayer],
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """The layers of the encoder and of the decoder, each with its slots."""
    return (
        nn.ModuleList(
            encoder(
                slots.layer(index, of=sizes.layers, max_length=source_length),
                Pattern.NONCAUSAL_SELF,
                sizes.dim,
                sizes.heads,
                expansion=sizes.expansion,
                dropout=sizes.dropout,
            )
            for index in range(sizes.layers)
        ),
        nn.ModuleList(
            decoder(
                slots.layer(index, of=sizes.layers, max_length=max(source_length, target_length)),
                Pattern.CAUSAL_SELF,
                Pattern.CAUSAL_CROSS,
                sizes.dim,
                sizes.heads,
                expansion=sizes.expansion,
                dropout=sizes.dropout,
            )
            for index in range(sizes.layers)
        ),
    )
