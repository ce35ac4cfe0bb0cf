"""Five functions of lists of numbers, and the lists (Back de Luca et al. 2025, arXiv 2410.01686).

At position i of a list x_1 ... x_n the target is, of the prefix x_1 ... x_i,

    min            the smallest number
    sum            the sum
    median         the median, of an even number of numbers the mean of the middle two
    max-subarray   the largest sum of a run of neighbouring numbers, at least one of them

and for ``sort`` the i-th smallest number of the whole list.

A list is uniform in a range [a, b] whose ends are two uniform numbers in [-2 s, 2 s], drawn anew
for every list; s is the scale, 1 in training. At a scale above 1 a range inside [-2, 2] is drawn
again, so that every list may leave the range of training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALF_RANGE = 2.0
"""Largest absolute value of training lists"""


def draw_lists(count: int, length: int, scale: float, generator: torch.Generator) -> Tensor:
    """(count, length) float32 lists; see the module."""
    ends = torch.empty(count, 2)
    missing = torch.ones(count, dtype=torch.bool)
    while missing.any():
        drawn = torch.rand(int(missing.sum()), 2, generator=generator)
        ends[missing] = HALF_RANGE * scale * (2 * drawn - 1)
        missing = (ends.abs().amax(1) <= HALF_RANGE) & (scale > 1)
    low, high = ends.amin(1, keepdim=True), ends.amax(1, keepdim=True)
    return low + (high - low) * torch.rand(count, length, generator=generator)


def prefix_min(x: Tensor) -> Tensor:
    """(B, n) to (B, n)."""
    return x.cummin(1).values


def prefix_sum(x: Tensor) -> Tensor:
    """(B, n) to (B, n)."""
    return x.cumsum(1)


def ordered(x: Tensor) -> Tensor:
    """(B, n) in ascending order."""
    return x.sort(1).values


def prefix_median(x: Tensor) -> Tensor:
    """(B, n) to (B, n)."""
    medians = []
    for end in range(1, x.shape[1] + 1):
        in_order = x[:, :end].sort(1).values
        medians.append((in_order[:, (end - 1) // 2] + in_order[:, end // 2]) / 2)
    return torch.stack(medians, dim=1)


def prefix_max_subarray(x: Tensor) -> Tensor:
    """(B, n) to (B, n), by Kadane's recursion."""
    ending = best = x[:, 0]
    sums = [best]
    for number in x[:, 1:].unbind(1):
        ending = number + ending.clamp_min(0)
        best = torch.maximum(best, ending)
        sums.append(best)
    return torch.stack(sums, dim=1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "min": prefix_min,
    "sum": prefix_sum,
    "sort": ordered,
    "median": prefix_median,
    "max_subarray": prefix_max_subarray,
}


def targets_of(x: Tensor) -> Tensor:
    """(B, n) lists to (B, n, 5) targets in the order of `FUNCTIONS`."""
    return torch.stack([function(x) for function in FUNCTIONS.values()], dim=-1)


def linear_predictor(x: Tensor, y: Tensor) -> Tensor:
    """Coefficients (n + 1, F) of the least-squares fit of (N, F) targets to (N, n) inputs and 1."""
    return torch.linalg.lstsq(with_one(x), y).solution


def with_one(x: Tensor) -> Tensor:
    """(N, n) to (N, n + 1) with ones in the last column."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
