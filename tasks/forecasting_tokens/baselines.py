"""Forecasts without training that the scores are read against."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.forecasting_tokens.tokens import DAY, Bins


def last_day(values: Tensor, ahead: int) -> Tensor:
    """(B, A) the hours a day before those asked for, of (B, P + A) values; A is at most a day."""
    return values[:, values.shape[1] - ahead - DAY : values.shape[1] - DAY]


class Counts:
    """Odds of a bin given that of the hour before and of the same hour a day before."""

    def __init__(self, training: Tensor, bins: Bins, ahead: int) -> None:
        """Count in (N, P + A) training values; a bin that was never seen counts a little."""
        self._bins, self._ahead = bins, ahead
        size = len(bins)
        context, wanted = self._contexts(training)
        table = torch.bincount((context * size + wanted).flatten(), minlength=size**3).double()
        table = table.view(size, size, size)
        # Rare pairs lean on what the hour before says alone.
        general = table.sum(0) + 1
        general = general / general.sum(-1, keepdim=True)
        self._odds = (table + size * general) / (table.sum(-1, keepdim=True) + size)

    def nll(self, values: Tensor) -> float:
        """Nats per hour ahead."""
        context, wanted = self._contexts(values)
        return -self._odds.flatten(0, 1)[context, wanted].log().mean().item()

    def _contexts(self, values: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self._bins.of(values)
        wanted = tokens[:, -self._ahead :]
        before = tokens[:, -self._ahead - 1 : -1]
        return last_day(tokens, self._ahead) * len(self._bins) + before, wanted
