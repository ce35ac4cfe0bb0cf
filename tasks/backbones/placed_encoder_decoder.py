"""Encoder-decoder whose tokens stand at places that both sides count in the same unit.

A pre-norm Transformer (Vaswani et al. 2017) in which the places of source and target are codes that
the task gives, so that a source token can say where in the target it belongs: a strip of a picture
at which digit, a coarse pixel among which fine ones. Two starts, alike for every mechanism, let
cross attention form within a short run:

* ``aligned``: the codes are added to the encoded source and to the queries of cross attention as
  well, whose query and key projections start as one orthogonal matrix, so that attention starts
  along the diagonal, as in the Transformer-TTS of this suite;
* ``copying``: value and output projections start as the identity, self attention's output at half
  strength, as in the summariser of this suite.

Shapes: B batch, S source tokens, T target tokens, E width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cab import Batch, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention, start_as_copy, start_as_similarity
from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer
from tasks.summarization.encoder_decoder import EncoderDecoder
from tasks.summarization.vocabulary import PADDING


@dataclass(frozen=True)
class Size:
    """Sizes of the layers, and how attention starts."""

    dim: int
    heads: int
    encoder: int
    """Layers"""
    decoder: int
    """Layers"""
    expansion: int = 2
    dropout: float = 0.1
    aligned: bool = True
    copying: bool = True


class PlacedDecoderLayer(CrossAttentionLayer):
    """A decoder layer whose cross attention may be told again where its queries are."""

    def placed(self, x: Tensor, source: Tensor, mask: Tensor, places: Tensor | None) -> Tensor:
        """(B, T, E) to (B, T, E).

        Args:
            x: the tokens, none of them padding that an earlier one could see.
            source: (B, S, E).
            mask: (B, S), True where a source token is valid.
            places: (T, E), added to the queries of cross attention; None: nothing is.
        """
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        queries = self.cross_attention_norm(x)
        if places is not None:
            queries = queries + places
        x = x + self.dropout(self.cross_attention(queries, source, key_mask=mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class PlacedEncoderDecoder(EncoderDecoder):
    """See the module; the slots are the self attention of both sides and the cross attention.

    With the control ``none`` in the cross slots the decoder cannot see the source.
    """

    source_places: Tensor
    target_places: Tensor

    def __init__(
        self,
        slots: Slots,
        size: Size,
        *,
        tokens: int,
        features: int | None,
        source_places: Tensor,
        target_places: Tensor,
    ) -> None:
        """Build both stacks.

        Args:
            slots: gives the attention modules.
            size: geometry and starts.
            tokens: ids of the vocabulary, those of `tasks.summarization.vocabulary` among them.
            features: numbers of a source token; None: it is an id of the same vocabulary.
            source_places: (S, E) codes of the longest source's places.
            target_places: (T, E) codes of the places of what is written.
        """
        super().__init__()
        self.aligned = size.aligned
        self.scale = size.dim**0.5
        self.register_buffer("source_places", source_places, persistent=False)
        self.register_buffer("target_places", target_places, persistent=False)
        self.embedding = nn.Embedding(tokens, size.dim)
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
        self.features = None if features is None else nn.Linear(features, size.dim)
        self.dropout = nn.Dropout(size.dropout)
        longest = max(len(source_places), len(target_places))
        self.encoder = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=size.encoder, max_length=len(source_places)),
                Pattern.NONCAUSAL_SELF,
                size.dim,
                size.heads,
                expansion=size.expansion,
                dropout=size.dropout,
            )
            for index in range(size.encoder)
        )
        self.decoder = nn.ModuleList(
            PlacedDecoderLayer(
                slots.layer(index, of=size.decoder, max_length=longest),
                Pattern.CAUSAL_SELF,
                Pattern.CAUSAL_CROSS,
                size.dim,
                size.heads,
                expansion=size.expansion,
                dropout=size.dropout,
            )
            for index in range(size.decoder)
        )
        self.encoder_norm = nn.LayerNorm(size.dim)
        self.decoder_norm = nn.LayerNorm(size.dim)
        self.output = nn.Linear(size.dim, tokens)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                if size.copying:
                    start_as_copy(module, 1.0 if module.cross else 0.5)
                if size.aligned and module.cross:
                    start_as_similarity(module)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `EncoderDecoder.encode`; ``source`` is (B, S) ids or (B, S, features) numbers."""
        source = batch["source"]
        if self.features is None:
            mask = source != PADDING
            x = self.scale * self.embedding(source)
        else:
            mask = torch.ones(source.shape[:2], dtype=torch.bool, device=source.device)
            x = self.features(source)
        places = self.source_places[: source.shape[1]]
        x = self.dropout(x + places)
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.encoder_norm(x)
        return (x + places if self.aligned else x), mask

    def decode(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """See `EncoderDecoder.decode`."""
        places = self.target_places[: tokens.shape[1]]
        x = self.dropout(self.scale * self.embedding(tokens) + places)
        for layer in self.decoder:
            assert isinstance(layer, PlacedDecoderLayer)
            x = layer.placed(x, memory, mask, places if self.aligned else None)
        return self.decoder_norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """See `EncoderDecoder.logits`."""
        return self.output(features)
