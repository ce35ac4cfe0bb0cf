"""Backbones over observations at irregular times.

A token is one observation: the code of its hour + an embedding of its variable + the calendar + its
value times a learned vector; a query is the same without a value, with a learned vector instead.
All slots are handed the time stamps. ``observation-reader``: queries read the observations in
cross-attention layers, blind to each other (mTAND's interpolation, Shukla and Marlin 2021, with
learned layers above it). ``set-encoder``: one encoder over observations and queries in the order of
time.

For every mechanism alike, attention starts as a comparison of hour and variable: one orthogonal
matrix projects queries and keys, and values pass through. Without that, whether the neighbours in
time are found within a short run is chance.

Shapes: B batch, N observations, M queries, F calendar features, E width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cab import AttentionContext, Batch, Pattern, Slots
from tasks.backbones.context_layer import looking_up

LONGEST_PERIOD = 192.0
"""Hours; the shortest period of the time code is 2 pi hours."""


def time_code(hours: Tensor, dim: int) -> Tensor:
    """(..., dim) sines and cosines of time stamps (...) in hours, integer or not."""
    count = dim // 2
    slowest = math.log(LONGEST_PERIOD / (2 * math.pi)) if count > 1 else 0.0
    rates = torch.exp(-slowest * torch.arange(count, device=hours.device) / max(1, count - 1))
    angle = hours.float()[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ObservationModel(nn.Module):
    """Values at the times asked for, by reading observations or by encoding both together."""

    def __init__(
        self,
        slots: Slots,
        pattern: Pattern,
        *,
        variables: int,
        features: int,
        max_length: int,
        dim: int,
        heads: int,
        layers: int,
        expansion: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.variable = nn.Embedding(variables, dim)
        self.calendar = nn.Linear(features, dim)
        self.value = nn.Linear(1, dim)
        self.question = nn.Parameter(torch.randn(dim))
        self.layers = looking_up(
            slots,
            pattern,
            layers,
            dim,
            heads,
            max_length=max_length,
            expansion=expansion,
            dropout=dropout,
        )
        self.cross = pattern.cross
        self.source_norm = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        self.readout = nn.Linear(dim, 1)

    def forward(self, batch: Batch) -> Tensor:
        """(B, M) predictions of a batch of `sampling.sample`; its target is not read."""
        known = self._place(batch["variables"], batch["hours"], batch["calendar"])
        known = known + self.value(batch["values"][..., None])
        asked = self._place(batch["asked_variables"], batch["asked_hours"], batch["asked_calendar"])
        asked = asked + self.question
        observed = batch["observed"]
        hours, asked_hours = batch["hours"].float(), batch["asked_hours"].float()
        if self.cross:
            x, source = asked, self.source_norm(known)
            context = AttentionContext(key_mask=observed, query_times=asked_hours, key_times=hours)
            for layer in self.layers:
                x = layer(x, source, context)
            return self.readout(self.norm(x))[..., 0]
        order, place = _in_time(hours, asked_hours, observed)
        x = _ordered(torch.cat([known, asked], dim=1), order)
        times = torch.cat([hours, asked_hours], dim=1).gather(1, order)
        valid = torch.cat([observed, torch.ones_like(asked_hours).bool()], dim=1).gather(1, order)
        context = AttentionContext(
            query_mask=valid, key_mask=valid, query_times=times, key_times=times
        )
        for layer in self.layers:
            x = layer(x, None, context)
        return self.readout(self.norm(_ordered(x, place)))[..., 0]

    def _place(self, variables: Tensor, hours: Tensor, calendar: Tensor) -> Tensor:
        code = time_code(hours, self.variable.embedding_dim)
        return self.variable(variables) + code + self.calendar(calendar)


def _in_time(hours: Tensor, asked: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """The order (B, N + M) of all tokens by time, masked ones last, and where in it the queries
    stand (B, M).
    """
    keys = torch.cat([hours.masked_fill(~observed, torch.inf), asked], dim=1)
    order = keys.argsort(dim=1, stable=True)
    return order, order.argsort(dim=1)[:, hours.shape[1] :]


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[-1]))
