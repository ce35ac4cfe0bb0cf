"""Inputs of timed calls: no two calls get the same numbers, and drawing them costs a copy.

Drawing from a generator takes about as long as a cheap mechanism, which would make the measuring
as dear as what is measured. So numbers are drawn once, more than any call needs, and every input is
a copy of a stretch that starts at a random place.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from cab import AttentionContext

_SPARE = 1 << 20
"""Numbers beyond the largest input: places to start at."""


class NumberPool:
    """Standard normal numbers from which inputs are cut."""

    def __init__(
        self,
        largest: int,
        row: int,
        device: torch.device,
        dtype: torch.dtype,
        generator: torch.Generator,
        order: random.Random,
    ) -> None:
        """Draw the numbers.

        Args:
            largest: numbers of the largest input.
            row: width of a token's row. Inputs that are cut one after the other start at different
                columns of it, so that a query is never a key that has been moved along.
            device: of the inputs.
            dtype: of the inputs.
            generator: for the numbers, on ``device``.
            order: for the places.
        """
        count = largest + max(_SPARE, largest // 4) + row
        self._numbers = torch.randn(count, generator=generator, device=device).to(dtype)
        self._row, self._order, self._turn = row, order, 0

    def cut(self, *shape: int) -> Tensor:
        """A tensor of its own with numbers from a random place."""
        size = prod(shape)
        self._turn += 1
        column = (self._turn * max(1, self._row // 5)) % self._row
        rows = (len(self._numbers) - size - column) // self._row
        start = self._order.randrange(rows + 1) * self._row + column
        return self._numbers[start : start + size].view(shape).clone()


@dataclass
class Inputs:
    """Tensors of one call."""

    q: Tensor
    """(B, H, Lq, D)"""
    k: Tensor
    """(B, H, Lk, D)"""
    v: Tensor
    context: AttentionContext
    gradient: Tensor | None = None
    """(B, H, Lq, Dv) of the output, where there is a backward pass"""

    def gradients(self) -> list[Tensor | None]:
        """What the backward pass left at q, k and v."""
        return [x.grad for x in (self.q, self.k, self.v)]
