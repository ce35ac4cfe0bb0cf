"""Informer (Zhou et al. 2021), with attention slots where CAB has them.

As published: value, position and time-stamp embeddings; post-norm layers; between encoder layers a
convolution and a pooling that halve the sequence (self-attention distilling, equation 5); a decoder
that begins with known values and predicts the whole horizon in one pass (section 3.3).

Not as published: time stamps are the six features on circles of the other backbones (Informer has
four straight lines), and attention weights are not dropped out, since a candidate may have none.

Shapes: B batch, H steps of history, O steps of horizon, K variables, F time features, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Layer, Pattern, Slots
from tasks.backbones.multihead import MultiHeadAttention
from tasks.backbones.positions import sinusoid
from tasks.backbones.transformer import FeedForward


class SeriesEmbedding(nn.Module):
    """Values through a width-3 convolution on the circle, plus positions, plus time stamps."""

    position: Tensor

    def __init__(
        self, variables: int, features: int, dim: int, length: int, dropout: float
    ) -> None:
        super().__init__()
        self.value = nn.Conv1d(variables, dim, 3, padding=1, padding_mode="circular")
        nn.init.kaiming_normal_(self.value.weight, nonlinearity="leaky_relu")
        self.time = nn.Linear(features, dim)
        self.register_buffer("position", sinusoid(length, dim), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, times: Tensor) -> Tensor:
        """(B, L, K) and (B, L, F) to (B, L, E)."""
        value = self.value(values.transpose(1, 2)).transpose(1, 2)
        return self.dropout(value + self.position[: values.shape[1]] + self.time(times))


class Distilling(nn.Module):
    """Convolution, batch norm, ELU and max-pooling with stride 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(dim, dim, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm1d(dim)
        self.pool = nn.MaxPool1d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, E) to (B, `distilled` (L), E)."""
        return self.pool(F.elu(self.norm(self.mix(x.transpose(1, 2))))).transpose(1, 2)


def distilled(length: int, times: int = 1) -> int:
    """Length of a sequence that was pooled so many times."""
    for _ in range(times):
        length = (length - 1) // 2 + 1
    return length


class EncoderLayer(nn.Module):
    """Self attention and feed-forward, each with a residual and a norm after it."""

    def __init__(
        self,
        layer: Layer,
        dim: int,
        heads: int,
        *,
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(
            layer,
            Pattern.NONCAUSAL_SELF,
            dim,
            heads,
        )
        self.feed_forward = FeedForward(dim, expansion)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, E) to (B, L, E)."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class DecoderLayer(nn.Module):
    """Causal self attention (softmax in every run), cross attention, feed-forward; post-norm."""

    def __init__(
        self,
        layer: Layer,
        dim: int,
        heads: int,
        *,
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__()

        def attention(pattern: Pattern) -> MultiHeadAttention:
            return MultiHeadAttention(
                layer,
                pattern,
                dim,
                heads,
            )

        self.attention = attention(Pattern.CAUSAL_SELF)
        self.cross_attention = attention(Pattern.NONCAUSAL_CROSS)
        self.feed_forward = FeedForward(dim, expansion)
        self.attention_norm = nn.LayerNorm(dim)
        self.cross_attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """(B, Lq, E) and the distilled history (B, Lk, E) to (B, Lq, E)."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        x = self.cross_attention_norm(x + self.dropout(self.cross_attention(x, source)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class Informer(nn.Module):
    """A distilling encoder and a generative decoder."""

    def __init__(
        self,
        slots: Slots,
        *,
        history: int,
        label: int,
        horizon: int,
        variables: int,
        features: int,
        dim: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        expansion: int,
        dropout: float,
    ) -> None:
        """Build both stacks.

        Args:
            slots: gives the attention modules.
            history: steps that the encoder reads.
            label: last steps of the history that begin the decoder's input.
            horizon: steps to predict.
            variables: K. features: F. dim: E.
            heads: of every slot.
            encoder_layers: with a `Distilling` between each two.
            decoder_layers: of the decoder.
            expansion: of the feed-forward layers, hidden width by ``dim``.
            dropout: after embeddings, attention and feed-forward layers.
        """
        super().__init__()
        self.label, self.horizon = label, horizon
        self.history_input = SeriesEmbedding(variables, features, dim, history, dropout)
        self.decoder_input = SeriesEmbedding(variables, features, dim, label + horizon, dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(
                slots.layer(index, of=encoder_layers, max_length=history),
                dim,
                heads,
                expansion=expansion,
                dropout=dropout,
            )
            for index in range(encoder_layers)
        )
        self.distilling = nn.ModuleList(Distilling(dim) for _ in range(encoder_layers - 1))
        self.decoder = nn.ModuleList(
            DecoderLayer(
                slots.layer(index, of=decoder_layers, max_length=max(history, label + horizon)),
                dim,
                heads,
                expansion=expansion,
                dropout=dropout,
            )
            for index in range(decoder_layers)
        )
        self.memory_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, variables)

    def forward(self, history: Tensor, history_times: Tensor, horizon_times: Tensor) -> Tensor:
        """(B, H, K), (B, H, F) and (B, O, F) to the forecast (B, O, K)."""
        memory = self.encoder[0](self.history_input(history, history_times))
        for pool, layer in zip(self.distilling, self.encoder[1:], strict=True):
            memory = layer(pool(memory))
        memory = self.memory_norm(memory)
        begin = history.shape[1] - self.label
        known = F.pad(history[:, begin:], (0, 0, 0, self.horizon))
        x = self.decoder_input(known, torch.cat([history_times[:, begin:], horizon_times], dim=1))
        for layer in self.decoder:
            x = layer(x, memory)
        return self.readout(self.norm(x[:, self.label :]))
