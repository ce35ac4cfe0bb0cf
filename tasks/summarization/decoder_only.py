"""Decoder-only summarisation: the source, then the summary, in one causal stream.

This is how language models summarise (Radford et al. 2019 append "TL;DR:" to a text). It is where
causal self attention carries the task: all that is known of the source comes through it, as in
`tasks.tts.decoder_only` for speech. In an encoder-decoder it only joins the few words of a summary
so far, and there is little to tell mechanisms apart by.

Shapes: B batch, S source tokens, T target tokens, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Pattern, Slots
from tasks.backbones.multihead import start_as_copy
from tasks.backbones.transformer import SelfAttentionLayer
from tasks.summarization.encoder_decoder import EncoderDecoder, Sizes
from tasks.summarization.vocabulary import PADDING

COPIED = 0.5
"""Factor of the output projections, which start as copies, as in self attention of `Summarizer`"""


class DecoderOnlySummarizer(EncoderDecoder):
    """Pre-norm layers over both texts, with one embedding tied for source, target and output.

    A token is its word plus learned vectors of its place in its text and of which text that is.
    Value and output projections start as the identity, without which copying does not form within
    a short run; every mechanism gets that start alike.
    """

    def __init__(
        self,
        slots: Slots,
        sizes: Sizes,
        *,
        vocabulary: int,
        source_length: int,
        target_length: int,
    ) -> None:
        super().__init__()
        dim = sizes.dim
        self.scale = dim**0.5
        self.embedding = nn.Embedding(vocabulary, dim)
        self.kinds = nn.Parameter(0.5 * torch.randn(2, dim))
        """Of the source and of the target"""
        self.offset = nn.Embedding(source_length, dim)
        self.position = nn.Embedding(target_length, dim)
        self.layers = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=sizes.layers, max_length=source_length + target_length),
                Pattern.CAUSAL_SELF,
                dim,
                sizes.heads,
                expansion=sizes.expansion,
                dropout=sizes.dropout,
            )
            for index in range(sizes.layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.output_bias = nn.Parameter(torch.zeros(vocabulary))
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
        nn.init.normal_(self.offset.weight, std=0.3)
        nn.init.normal_(self.position.weight, std=0.3)
        for layer in self.layers:
            assert isinstance(layer, SelfAttentionLayer)
            start_as_copy(layer.attention, COPIED)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `EncoderDecoder.encode`; here no more than embeddings."""
        source = batch["source"]
        x = self.embedding(source) * self.scale + self.kinds[0] + self.offset(batch["offset"])
        return x, source != PADDING

    def decode(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """See `EncoderDecoder.decode`."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        target = self.embedding(tokens) * self.scale + self.kinds[1] + self.position(places)
        x = torch.cat([memory, target], dim=1)
        valid = F.pad(mask, (0, tokens.shape[1]), value=True)
        for layer in self.layers:
            x = layer(x, valid)
        return self.norm(x[:, memory.shape[1] :])

    def logits(self, features: Tensor) -> Tensor:
        """See `EncoderDecoder.logits`."""
        return F.linear(features, self.embedding.weight, self.output_bias)
