"""Backbones whose tokens are variables.

A variable's token is a linear map of its history + its embedding + the calendar; where the history
is missing, a learned vector stands for it, and the key mask hides the token from all others.
``variable-encoder``: self attention over all variables, as in the inverted Transformer (Liu et al.
2024) and between GinAR's variables. ``variable-reader``: every variable is a query, of embedding
and calendar only, that reads the ones present.

For every mechanism alike, attention starts as likeness of tokens and hands values through.

Shapes: B batch, K variables, T hours of history, O of horizon, F calendar features, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Pattern, Slots
from tasks.backbones.context_layer import looking_up


class VariableModel(nn.Module):
    """Forecasts of all variables from those present."""

    def __init__(
        self,
        slots: Slots,
        pattern: Pattern,
        *,
        variables: int,
        history: int,
        horizon: int,
        features: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.variable = nn.Parameter(torch.randn(variables, dim))
        self.calendar = nn.Linear(features, dim)
        self.history = nn.Linear(history, dim)
        self.unknown = nn.Parameter(torch.randn(dim))
        self.layers = looking_up(
            slots,
            pattern,
            layers,
            dim,
            heads,
            max_length=variables,
            expansion=expansion,
            dropout=dropout,
        )
        self.cross = pattern.cross
        self.source_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, horizon)

    def forward(self, batch: Batch) -> Tensor:
        """(B, K, O) forecasts of a batch of `windows.masked_windows`; its target is not read."""
        present = batch["present"]
        place = self.variable + self.calendar(batch["calendar"])[:, None]
        question = place + self.unknown
        known = place + self.history(batch["history"])
        context = AttentionContext(key_mask=present)
        if self.cross:
            x, source = question, self.source_norm(known)
            for layer in self.layers:
                x = layer(x, source, context)
        else:
            x = torch.where(present[..., None], known, question)
            for layer in self.layers:
                x = layer(x, None, context)
        return self.readout(self.norm(x))
