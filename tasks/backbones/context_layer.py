"""Pre-norm layer whose slot is told more than its tokens: time stamps, key masks, grids.

One attention slot of any pattern and a feed-forward, each with a residual. In a cross pattern this
is a decoder layer without self attention: queries that read a source and know nothing of each
other, as the output queries of Perceiver IO (Jaegle et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from cab import AttentionContext, Layer, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention, start_as_copy, start_as_similarity
from tasks.backbones.transformer import FeedForward


class ContextAttention(MultiHeadAttention):
    """Multi-head projection around a slot that is handed a whole context."""

    def attend(self, x: Tensor, source: Tensor | None, context: AttentionContext) -> Tensor:
        """Mix tokens.

        Args:
            x: (B, Lq, E).
            source: (B, Lk, E) in a cross slot, None in a self slot.
            context: for the slot; the layer inputs are filled in here.

        Returns:
            (B, Lq, E)
        """
        keys = x if source is None else source
        mixed = self.core(
            self._split(self.query(x)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            replace(context, query_input=x, key_input=keys),
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


class ContextLayer(nn.Module):
    """Attention and feed-forward."""

    def __init__(
        self,
        layer: Layer,
        pattern: Pattern,
        dim: int,
        heads: int,
        *,
        expansion: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = ContextAttention(
            layer,
            pattern,
            dim,
            heads,
        )
        self.feed_forward = FeedForward(dim, expansion)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, source: Tensor | None = None, context: AttentionContext | None = None
    ) -> Tensor:
        """(B, Lq, E), in a cross slot with a source (B, Lk, E), to (B, Lq, E)."""
        mixed = self.attention.attend(self.attention_norm(x), source, context or AttentionContext())
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


def looking_up(
    slots: Slots,
    pattern: Pattern,
    layers: int,
    dim: int,
    heads: int,
    *,
    max_length: int,
    expansion: int,
    dropout: float = 0.0,
) -> nn.ModuleList:
    """A stack of `ContextLayer` that starts as a look-up by likeness: one orthogonal matrix for
    queries and keys, and values passed through.
    """
    stack = [
        ContextLayer(
            slots.layer(index, of=layers, max_length=max_length),
            pattern,
            dim,
            heads,
            expansion=expansion,
            dropout=dropout,
        )
        for index in range(layers)
    ]
    for layer in stack:
        start_as_similarity(layer.attention)
        start_as_copy(layer.attention)
    return nn.ModuleList(stack)
