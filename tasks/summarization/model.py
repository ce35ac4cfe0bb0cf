"""The backbone of the smaller scales: an encoder-decoder that starts close to copying."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Slots
from tasks.backbones.multihead import MultiHeadAttention, start_as_copy
from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer
from tasks.summarization.encoder_decoder import EncoderDecoder, Sizes, layers
from tasks.summarization.vocabulary import PADDING


class Summarizer(EncoderDecoder):
    """Pre-norm encoder-decoder with one embedding tied for source, target and output.

    A source token is its word plus learned vectors of its field and of its place in the field, as
    in table-to-text models (Lebret et al. 2016). Value and output projections of every attention
    start as the identity (self attention's output at half strength): without that start, which
    every mechanism gets alike, copying does not form within a short run.
    """

    def __init__(
        self,
        slots: Slots,
        sizes: Sizes,
        *,
        vocabulary: int,
        fields: int,
        source_length: int,
        target_length: int,
    ) -> None:
        super().__init__()
        dim = sizes.dim
        self.scale = dim**0.5
        self.embedding = nn.Embedding(vocabulary, dim)
        self.field = nn.Embedding(fields, dim)
        self.offset = nn.Embedding(source_length, dim)
        self.position = nn.Embedding(target_length, dim)
        self.encoder, self.decoder = layers(
            slots,
            sizes,
            source_length=source_length,
            target_length=target_length,
            encoder=SelfAttentionLayer,
            decoder=CrossAttentionLayer,
        )
        self.encoder_norm = nn.LayerNorm(dim)
        self.decoder_norm = nn.LayerNorm(dim)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
        nn.init.normal_(self.field.weight, std=0.5)
        nn.init.normal_(self.offset.weight, std=0.3)
        nn.init.normal_(self.position.weight, std=0.3)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                start_as_copy(module, 1.0 if module.cross else 0.5)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `EncoderDecoder.encode`."""
        source = batch["source"]
        mask = source != PADDING
        x = self.embedding(source) * self.scale
        x = x + self.field(batch["field"]) + self.offset(batch["offset"])
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x), mask

    def decode(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """See `EncoderDecoder.decode`."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens) * self.scale + self.position(places)
        for layer in self.decoder:
            x = layer(x, memory, source_mask=mask)
        return self.decoder_norm(x)

    def logits(self, features: Tensor) -> Tensor:
        """See `EncoderDecoder.logits`."""
        return F.linear(features, self.embedding.weight, self.output_bias)
