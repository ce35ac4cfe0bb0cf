"""Pre-norm layer whose slot is told more than its tokens: time stamps, key masks, grids.

One attention slot of any pattern and a feed-forward, each with a residual. In a cross pattern this
is a decoder layer without self attention: queries that read a source and know nothing of each
other, as the output queries of Perceiver IO (Jaegle et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from cab import AttentionContext, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention
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
        slots: Slots,
        pattern: Pattern,
        dim: int,
        heads: int,
        *,
        layer_index: int,
        layers: int,
        max_length: int,
        expansion: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = ContextAttention(
            slots,
            pattern,
            dim,
            heads,
            layer_index=layer_index,
            layers=layers,
            max_length=max_length,
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
