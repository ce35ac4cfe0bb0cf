"""A ridge per head, positive and trainable."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FLOOR = 1e-3
"""Rows with fewer visible keys than dimensions are singular without a ridge, in float32 already
with much less than this one."""


class RidgeParameter(nn.Module):
    """softplus(raw) + floor, one number per head."""

    def __init__(self, heads: int, start: float, *, learn: bool) -> None:
        super().__init__()
        if not 0 < start < math.inf:
            raise ValueError(f"ridge must be positive and finite, not {start}")
        self.floor = min(_FLOOR, start / 2)
        # Inverse of softplus, so that the ridge starts where it was asked to.
        raw = start - self.floor
        raw += math.log(-math.expm1(-raw))
        value = torch.full((heads,), raw)
        if learn:
            self.raw: Tensor = nn.Parameter(value)
        else:
            self.register_buffer("raw", value)

    def forward(self) -> Tensor:
        """(H,) positive; float32 at least."""
        return F.softplus(self.raw) + self.floor

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `cab.Attention.parameter_groups`: without decay, which would pull the ridge to one
        fixed value.
        """
        if isinstance(self.raw, nn.Parameter):
            return [{"params": [self.raw], "weight_decay": 0.0}]
        return []
