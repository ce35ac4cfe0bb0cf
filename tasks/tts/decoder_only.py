"""Decoder-only text to speech: the characters, then the groups of frames, in one causal stream.

This is how speech language models read text (Wang et al. 2023, VALL-E, for one), here with the
input and output nets of Transformer-TTS in place of a codec: frames are continuous, and one
readout makes them. CAB has no such backbone. It is where causal self attention carries a task,
since all that is known of the text comes through it.

Shapes: B batch, L characters, G groups of frames, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Pattern, Slots
from tasks.backbones.multihead import start_as_similarity
from tasks.backbones.transformer import SelfAttentionLayer
from tasks.tts.autoregressive import Autoregressive, AutoregressiveSize, Source
from tasks.tts.text import PADDING


class DecoderOnly(Autoregressive):
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
        """Build the stack.

        Args:
            slots: gives the attention modules.
            size: geometry; the text has no convolutions.
            bands: of a frame.
            longest_text: tokens.
            longest_sound: frames.
        """
        super().__init__(size, bands, longest_sound)
        self.kinds = nn.Parameter(0.3 * torch.randn(2, size.dim))
        """Of the characters and of the groups"""
        self.dropout = nn.Dropout(size.dropout)
        layers = [
            SelfAttentionLayer(
                slots.layer(index, of=size.layers, max_length=longest_text + self.longest),
                Pattern.CAUSAL_SELF,
                size.dim,
                size.heads,
                dropout=size.dropout,
            )
            for index in range(size.layers)
        ]
        if size.aligned:
            for layer in layers:
                start_as_similarity(layer.attention)
        self.layers = nn.ModuleList(layers)

    def encode(self, tokens: Tensor, groups: Tensor) -> Source:
        """See `Autoregressive.encode`; here no more than embeddings."""
        positions = self.positions(self.text_places(tokens, groups))
        x = self.embedding(tokens) + self.text_scale * positions + self.kinds[0]
        return Source(self.dropout(x), tokens != PADDING)

    def decode(self, before: Tensor, source: Source, mask: Tensor) -> Tensor:
        """See `Autoregressive.decode`."""
        places = torch.arange(before.shape[1], device=before.device).float()
        sound = self.prenet(before) + self.sound_scale * self.positions(places) + self.kinds[1]
        x = torch.cat([source.tokens, self.dropout(sound)], dim=1)
        valid = torch.cat([source.mask, mask], dim=1)
        for layer in self.layers:
            x = layer(x, valid)
        return self.norm(x[:, source.tokens.shape[1] :])
