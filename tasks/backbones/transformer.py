"""Pre-norm Transformer layers with attention slots (Vaswani et al. 2017; Xiong et al. 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from cab import Layer, Pattern
from tasks.backbones.multihead import MultiHeadAttention


class FeedForward(nn.Sequential):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__(
            nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim)
        )


class SelfAttentionLayer(nn.Module):
    """Self attention and feed-forward, each with a residual: an encoder layer or, with the causal
    pattern, a GPT-2 layer.
    """

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
        self.attention = MultiHeadAttention(
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
        self, x: Tensor, mask: Tensor | None = None, grid: tuple[int, ...] | None = None
    ) -> Tensor:
        """(B, L, E) to (B, L, E).

        Args:
            x: the tokens.
            mask: (B, L) bool, True where a token is valid.
            grid: shape of the grid that the tokens lie on, row-major.
        """
        mixed = self.attention(self.attention_norm(x), query_mask=mask, grid=grid)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class CrossAttentionLayer(nn.Module):
    """Self attention, cross attention and feed-forward: a decoder layer.

    ``self_pattern`` and ``cross_pattern`` are causal together in an autoregressive decoder and
    noncausal together in a decoder that predicts all positions at once.
    """

    def __init__(
        self,
        layer: Layer,
        self_pattern: Pattern,
        cross_pattern: Pattern,
        dim: int,
        heads: int,
        *,
        expansion: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            layer,
            self_pattern,
            dim,
            heads,
        )
        self.cross_attention = MultiHeadAttention(
            layer,
            cross_pattern,
            dim,
            heads,
        )
        self.feed_forward = FeedForward(dim, expansion)
        self.attention_norm = nn.LayerNorm(dim)
        self.cross_attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        mask: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, Lq, E) and the encoded source (B, Lk, E) to (B, Lq, E)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), query_mask=mask))
        x = x + self.dropout(
            self.cross_attention(
                self.cross_attention_norm(x), source, query_mask=mask, key_mask=source_mask
            )
        )
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
