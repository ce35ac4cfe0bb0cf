"""Transformer layers with the norm after each residual sum, as first published (Vaswani et al.
2017); the modules are those of the pre-norm layers.
"""

from __future__ import annotations

from torch import Tensor

from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer


class PostNormSelfAttentionLayer(SelfAttentionLayer):
    """Self attention and feed-forward: an encoder layer."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, grid: tuple[int, ...] | None = None
    ) -> Tensor:
        """See `SelfAttentionLayer.forward`."""
        mixed = self.attention(x, query_mask=mask, grid=grid)
        x = self.attention_norm(x + self.dropout(mixed))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class PostNormCrossAttentionLayer(CrossAttentionLayer):
    """Self attention, cross attention and feed-forward: a decoder layer."""

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        """See `CrossAttentionLayer.forward`."""
        x = self.attention_norm(x + self.dropout(self.attention(x, query_mask=mask)))
        mixed = self.cross_attention(x, source, query_mask=mask, key_mask=source_mask)
        x = self.cross_attention_norm(x + self.dropout(mixed))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
