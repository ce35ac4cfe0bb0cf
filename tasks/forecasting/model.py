"""The two forecasting backbones. Both predict all future steps at once, as an offset to the last
value of the history (a window's level says little about its shape).

Shapes: B batch, H steps of history, O steps of horizon, K variables, F time features, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import Pattern, Slots
from tasks.backbones.positions import sinusoid
from tasks.backbones.transformer import CrossAttentionLayer, SelfAttentionLayer


class EncoderDecoder(nn.Module):
    """An encoder of the history and a decoder of time-stamped queries; the noncausal-cross slots.

    The queries know only *when* they are: Informer's decoder also gets the last values as label
    tokens (Zhou et al. 2021, section 3.3), a path around cross attention that is left out here.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        history: int,
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
        super().__init__()
        self.history_input = nn.Linear(variables + features, dim)
        self.horizon_input = nn.Linear(features, dim)
        self.position = nn.Parameter(sinusoid(history + horizon, dim))
        self.encoder = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=encoder_layers, max_length=history),
                Pattern.NONCAUSAL_SELF,
                dim,
                heads,
                expansion=expansion,
                dropout=dropout,
            )
            for index in range(encoder_layers)
        )
        self.decoder = nn.ModuleList(
            CrossAttentionLayer(
                slots.layer(index, of=decoder_layers, max_length=max(history, horizon)),
                Pattern.NONCAUSAL_SELF,
                Pattern.NONCAUSAL_CROSS,
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
        steps = history.shape[1]
        last = history[:, -1:]
        memory = self.history_input(torch.cat([history - last, history_times], dim=-1))
        memory = memory + self.position[:steps]
        for layer in self.encoder:
            memory = layer(memory)
        memory = self.memory_norm(memory)
        x = self.horizon_input(horizon_times) + self.position[steps:]
        for layer in self.decoder:
            x = layer(x, memory)
        return last + self.readout(self.norm(x))


class MaskedEncoder(nn.Module):
    """One encoder over history and masked future; the noncausal-self slots.

    As in Moirai (Woo et al. 2024) the future steps are mask tokens with a time stamp. In an
    encoder-decoder, cross attention makes self attention redundant (its noncausal-self slots do
    not tell attention from none), so these slots get a backbone that has no other path.
    """

    def __init__(
        self,
        slots: Slots,
        *,
        history: int,
        horizon: int,
        variables: int,
        features: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.history_input = nn.Linear(variables + features, dim)
        self.horizon_input = nn.Linear(features, dim)
        self.mask_token = nn.Parameter(0.5 * torch.randn(dim))
        self.position = nn.Parameter(sinusoid(history + horizon, dim))
        self.encoder = nn.ModuleList(
            SelfAttentionLayer(
                slots.layer(index, of=layers, max_length=history + horizon),
                Pattern.NONCAUSAL_SELF,
                dim,
                heads,
                expansion=expansion,
                dropout=dropout,
            )
            for index in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, variables)

    def forward(self, history: Tensor, history_times: Tensor, horizon_times: Tensor) -> Tensor:
        """(B, H, K), (B, H, F) and (B, O, F) to the forecast (B, O, K)."""
        last = history[:, -1:]
        past = self.history_input(torch.cat([history - last, history_times], dim=-1))
        future = self.horizon_input(horizon_times) + self.mask_token
        x = torch.cat([past, future], dim=1) + self.position
        for layer in self.encoder:
            x = layer(x)
        return last + self.readout(self.norm(x[:, history.shape[1] :]))
