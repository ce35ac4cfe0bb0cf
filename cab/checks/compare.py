"""Comparisons, with bars that follow from the rounding of a dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from cab.errors import ContractError

EXACT = 1e-9
"""Bar for float64 comparisons of two evaluations of one function."""

_ULPS = 2
"""Roundings of a result that was computed in a longer dtype and may fall either way"""
_ULPS_OF_OTHER_SHAPES = 4
"""Where sums were taken in another order, in the short dtype itself"""
_SINGLE = 256
"""Roundings of float32 and float64 in sums of other order; half of the digits are left"""


def same(want: Tensor, got: Tensor, complaint: str) -> None:
    """Equal in float64, relative to the larger of 1 and the largest number.

    Raises:
        ContractError: the complaint, with the size of the difference.
    """
    if want.shape != got.shape:
        raise ContractError(f"{complaint}: shapes {tuple(want.shape)} and {tuple(got.shape)}")
    if want.numel() == 0:
        return
    difference = (want - got).abs().max().item()
    if not difference <= EXACT * max(1.0, want.abs().max().item()):
        raise ContractError(f"{complaint}: largest difference {difference:.1e} in float64")


def rounding_bar(dtype: torch.dtype, other_shape: bool = False) -> float:
    """How far two evaluations of one function on tensors of one shape may be apart, relative to
    the largest output: nothing, in principle. What a mechanism subtracts for safety (the largest
    of all scores) may round otherwise.
    """
    if dtype is torch.float64:
        return EXACT
    if dtype is torch.float32:
        return _SINGLE * torch.finfo(dtype).eps
    return (_ULPS_OF_OTHER_SHAPES if other_shape else _ULPS) * torch.finfo(dtype).eps


def excess(want: Tensor, got: Tensor, where: Tensor | None = None) -> tuple[float, float]:
    """Largest difference, and largest number of what is wanted, at the places asked for.

    A difference that is not a number counts as infinite, except where both are the same infinity
    or both not a number.
    """
    a, b = want.double(), got.double()
    difference = (a - b).abs()
    same_kind = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same_kind, 0.0, difference.nan_to_num(nan=torch.inf))
    size = torch.where(a.isfinite(), a.abs(), 0.0)
    if where is not None:
        difference, size = (x.masked_fill(~where, 0.0) for x in (difference, size))
    if difference.numel() == 0:
        return 0.0, 0.0
    return difference.max().item(), size.max().item()
