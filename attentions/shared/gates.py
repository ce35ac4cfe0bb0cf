"""Gates of recurrent mechanisms, from the layer's input: how much of a state stays, and how much is
written. Each gives (B, H, L, channels) of inputs (B, L, E), in float32 at least.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import AttentionSpec

_SHORTEST, _LONGEST = 1e-3, 1e-1
"""Steps that a decay begins with, drawn between them evenly in their logarithm (Gu and Dao 2023,
arXiv 2312.00752)"""


def input_width(spec: AttentionSpec) -> int:
    """E."""
    return spec.embed_dim or spec.heads * spec.head_dim


class Gate(nn.Module):
    """sigmoid(W x + b) times ``most``."""

    def __init__(
        self, spec: AttentionSpec, channels: int = 1, rank: int = 0, most: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.most = spec.heads, most
        self.project = projection(input_width(spec), spec.heads * channels, rank)

    def forward(self, x: Tensor) -> Tensor:
        """Of the layer's input."""
        return self.most * per_head(wide(self.project(cast(x, self.project))), self.heads).sigmoid()


class SoftplusDecay(nn.Module):
    """Logarithms of decays -exp(a) softplus(W x + b), a one number of a head (Mamba-2).

    Rates exp(a) begin between ``rates``, evenly drawn, and softplus(b) between 0.001 and 0.1.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        channels: int = 1,
        rank: int = 0,
        rates: tuple[float, float] = (1.0, 16.0),
    ) -> None:
        super().__init__()
        self.heads = spec.heads
        self.project = projection(input_width(spec), spec.heads * channels, rank)
        step = torch.empty(spec.heads * channels).uniform_(math.log(_SHORTEST), math.log(_LONGEST))
        step = step.exp()
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.log_rate = nn.Parameter(torch.empty(spec.heads).uniform_(*rates).log())

    def steps(self, x: Tensor) -> Tensor:
        """softplus(W x + b) alone."""
        raw = wide(self.project(cast(x, self.project)))
        return per_head(F.softplus(raw + self.step_bias.to(raw.dtype)), self.heads)

    def forward(self, x: Tensor) -> Tensor:
        """Of the layer's input."""
        return self.decay(self.steps(x))

    def decay(self, steps: Tensor) -> Tensor:
        """Logarithms of decays of given `steps`."""
        return -self.log_rate.to(steps.dtype).exp()[:, None, None] * steps


def undecayed_parameters(module: nn.Module) -> list[dict[str, Any]]:
    """An optimiser group without weight decay for rates and first steps, as their authors train."""
    decays = [x for x in module.modules() if isinstance(x, SoftplusDecay)]
    own = [y for x in decays for y in (x.step_bias, x.log_rate)]
    return [{"params": own, "weight_decay": 0.0}] if own else []


def projection(width: int, out: int, rank: int) -> nn.Module:
    """A linear map without bias; with a ``rank``, through as many numbers."""
    if not rank:
        return nn.Linear(width, out, bias=False)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, out, bias=False))


def per_head(x: Tensor, heads: int) -> Tensor:
    """(B, L, H c) as (B, H, L, c)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cast(x: Tensor, module: nn.Module) -> Tensor:
    """Inputs in the dtype of a module's weights."""
    return x.to(next(module.parameters()).dtype)
