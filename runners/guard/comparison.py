"""How far two outputs are apart, place by place, and how far rounding alone may take them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cab import AttentionContext

REPEATED = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Bar for two calls of one shape, by the coarsest dtype that a number passes through. The places
that are compared had the same inputs, so next to nothing is allowed."""

RESHAPED = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Bar for calls of two shapes, whose sums are rounded in another order."""

LAYERS = 5.0
"""Bars are as many times higher for what has passed through a whole model."""

_FLOOR = 0.1
"""Share of the usual size of a place below which a place counts as that large: where terms cancel,
rounding is large beside what is left."""


@dataclass(frozen=True)
class Deviation:
    """The place where two outputs differ most."""

    size: float
    """Norm of the difference relative to the size of the output there"""
    place: tuple[int, ...]
    """Index of the place, without the last dimension"""


def deviation(want: Tensor, got: Tensor, counted: Tensor | None = None) -> Deviation:
    """Compare (..., C) outputs vector by vector.

    Args:
        want: finite, or infinite where ``got`` must be so too.
        got: of the same shape.
        counted: (...) bool, broadcastable: the vectors that are compared; None: all.
    """
    wide = torch.promote_types(torch.promote_types(want.dtype, got.dtype), torch.float32)
    want, got = want.detach().to(wide), got.detach().to(wide)
    # What is equal is no difference, minus infinity included.
    apart = torch.where(want == got, 0.0, want - got).norm(dim=-1)
    sizes = torch.where(want.isfinite(), want, 0.0).norm(dim=-1)
    usual = sizes.square().mean().sqrt()
    relative = apart / torch.maximum(sizes, _FLOOR * usual).clamp(min=1e-30)
    relative = relative.nan_to_num(nan=torch.inf)
    if counted is not None:
        relative = torch.where(counted, relative, 0.0)
    if not relative.numel():
        return Deviation(0.0, ())
    flat = int(relative.argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), relative.shape))
    return Deviation(relative.flatten()[flat].item(), place)


def counted_places(context: AttentionContext | None, out: Tensor) -> Tensor:
    """(B, 1, Lq) which of a slot's outputs (B, H, Lq, Dv) anybody reads: not those of padding."""
    mask = None if context is None else context.query_mask
    if mask is None:
        return torch.ones(out.shape[0], 1, out.shape[2], dtype=torch.bool, device=out.device)
    return mask[:, None, : out.shape[2]]
