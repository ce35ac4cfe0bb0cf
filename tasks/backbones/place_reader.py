"""Queries that are places, which read known content through cross-attention layers.

A known token is the code of its place + a linear map of its content; a query is the code of a place
+ one learned vector, which starts at zero. Queries hold no content and do not see each other, and
the source has no encoder: everything that differs between two places' answers beside the places
themselves has to come through attention. This is a Transformer decoder without self attention, as
the output queries of Perceiver IO (Jaegle et al. 2022), over tokens as they come.

For every mechanism alike, attention starts as likeness: one orthogonal matrix, times ``sharpness``,
projects queries and keys, and values pass through. Codes of near places are alike, so what starts
as likeness is nearness.

Shapes: B batch, M queries, L known tokens, C content, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import AttentionContext, Pattern, Slots
from tasks.backbones.context_layer import ContextLayer, looking_up


class PlaceReader(nn.Module):
    """Cross-attention layers from places to known content."""

    def __init__(
        self,
        slots: Slots,
        *,
        content: int,
        outputs: int,
        dim: int,
        heads: int,
        layers: int,
        max_length: int,
        sharpness: float,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            slots: give the attention modules.
            content: C, numbers of a known token.
            outputs: numbers of an answer.
            dim: E.
            heads: of attention.
            layers: of cross attention.
            max_length: the most queries or known tokens.
            sharpness: factor of the query and of the key projection at the start.
            dropout: behind attention and feed-forward.
        """
        super().__init__()
        self.content = nn.Linear(content, dim)
        self.unknown = nn.Parameter(torch.zeros(dim))
        self.layers = looking_up(
            slots,
            Pattern.NONCAUSAL_CROSS,
            layers,
            dim,
            heads,
            max_length=max_length,
            expansion=2,
            dropout=dropout,
        )
        with torch.no_grad():
            for layer in self.layers:
                assert isinstance(layer, ContextLayer)
                layer.attention.query.weight.mul_(sharpness)
                layer.attention.key.weight.mul_(sharpness)
        self.source_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, outputs)

    def forward(
        self,
        asked: Tensor,
        known: Tensor,
        content: Tensor,
        context: AttentionContext | None = None,
    ) -> Tensor:
        """(B, M, outputs) answers.

        Args:
            asked: (B, M, E) codes of the places asked for.
            known: (B, L, E) codes of the places that are known.
            content: (B, L, C) what is known there.
            context: for the slots.
        """
        source = self.source_norm(known + self.content(content))
        x = asked + self.unknown
        for layer in self.layers:
            x = layer(x, source, context)
        answer: Tensor = self.readout(self.norm(x))
        return answer
