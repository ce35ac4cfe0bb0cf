"""Transformer-TTS (Li et al. 2019), with slots in all its attention.

As in fairseq, which CAB trained: three convolutions before the encoder, a prenet before the
decoder, sinusoids with a learned scale, pre-norm layers, a postnet. Not as there: the feed-forward
layers have GELU for ReLU.

Shapes: B batch, L characters, G groups of frames, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Pattern, Slots
from tasks.backbones.multihead import start_as_similarity
from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer
from tasks.tts.autoregressive import Autoregressive, AutoregressiveSize, Source
from tasks.tts.text import PADDING


class TextConvolutions(nn.Module):
    """Convolutions of width 5 along the text, with batch norm, ReLU and dropout, and a linear
    layer; nothing where there are none.
    """

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, 5, padding=2) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(layers))
        self.dropout = nn.Dropout(0.5)
        self.projection = nn.Linear(dim, dim) if layers else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, E) to (B, L, E); ``mask`` (B, L) is True where a token is valid."""
        x = x.transpose(1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.dropout(norm(convolution(x * mask[:, None])).relu())
        return self.projection(x.transpose(1, 2))


class DecoderLayer(CrossAttentionLayer):
    """A decoder layer whose cross attention may be told again where it is."""

    def placed(self, x: Tensor, source: Source, mask: Tensor, positions: Tensor | None) -> Tensor:
        """(B, G, E) to (B, G, E), with ``positions`` (G, E) added to the queries."""
        x = x + self.dropout(self.attention(self.attention_norm(x), query_mask=mask))
        queries = self.cross_attention_norm(x)
        if positions is not None:
            queries = queries + positions
        mixed = self.cross_attention(queries, source.tokens, query_mask=mask, key_mask=source.mask)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class TransformerTTS(Autoregressive):
    """See the module."""

    def __init__(
        self,
        slots: Slots,
        size: AutoregressiveSize,
        *,
        bands: int,
        longest_text: int,
        longest_sound: int,
    ) -> None:
        """Build both stacks.

        Args:
            slots: gives the attention modules.
            size: geometry.
            bands: of a frame.
            longest_text: tokens.
            longest_sound: frames.
        """
        super().__init__(size, bands, longest_sound)
        self.convolutions = TextConvolutions(size.dim, size.convolutions)
        self.dropout = nn.Dropout(size.dropout)
        self.encoder = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=size.layers, max_length=longest_text),
                Pattern.NONCAUSAL_SELF,
                size.dim,
                size.heads,
                dropout=size.dropout,
            )
            for index in range(size.layers)
        )
        self.encoder_norm = nn.LayerNorm(size.dim)
        decoder = [
            DecoderLayer(
                slots.layer(index, of=size.layers, max_length=max(longest_text, self.longest)),
                Pattern.CAUSAL_SELF,
                Pattern.CAUSAL_CROSS,
                size.dim,
                size.heads,
                dropout=size.dropout,
            )
            for index in range(size.layers)
        ]
        if size.aligned:
            for layer in decoder:
                start_as_similarity(layer.cross_attention)
        self.decoder = nn.ModuleList(decoder)

    def encode(self, tokens: Tensor, groups: Tensor) -> Source:
        """See `Autoregressive.encode`."""
        mask = tokens != PADDING
        positions = self.positions(self.text_places(tokens, groups))
        x = self.convolutions(self.embedding(tokens), mask)
        x = self.dropout(x + self.text_scale * positions)
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.encoder_norm(x)
        return Source(x + positions if self.size.aligned else x, mask)

    def decode(self, before: Tensor, source: Source, mask: Tensor) -> Tensor:
        """See `Autoregressive.decode`."""
        places = torch.arange(before.shape[1], device=before.device).float()
        positions = self.positions(places)
        x = self.dropout(self.prenet(before) + self.sound_scale * positions)
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            x = layer.placed(x, source, mask, positions if self.size.aligned else None)
        return self.norm(x)
