"""What a task draws its batches from: the embedded shapes or a copy of PCN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from cab import Batch
from cab.task_contract import Split


@dataclass(frozen=True)
class Amounts:
    """Points of a pair, and pairs to evaluate."""

    seen: int
    """Points of the input"""
    training_truth: int
    """Points of the whole cloud in training"""
    truth: int
    """The same at evaluation"""
    evaluated: int
    """Pairs of an evaluated split"""


class Pairs(Protocol):
    """Batches of ``partial`` (B, seen, 3) and ``complete`` (B, truth, 3) clouds."""

    @property
    def data_hash(self) -> str:
        """Content hash of the data."""

    @property
    def training_shapes(self) -> int:
        """Shapes to train on."""

    def training_batch(self, size: int, generator: torch.Generator) -> Batch:
        """Distinct random shapes (as long as there are enough), one view of each."""

    def evaluation_batches(self, split: Split, pairs: int, size: int) -> Iterator[Batch]:
        """That many pairs, spread evenly over the split, the same in every run; ``size`` a batch.

        Data with a single view of each shape has no more pairs than shapes.
        """


def some(count: int, size: int, generator: torch.Generator) -> list[int]:
    """``size`` random numbers below ``count``, distinct as long as there are enough."""
    rounds = -(-size // count)
    order = [torch.randperm(count, generator=generator) for _ in range(rounds)]
    numbers: list[int] = torch.cat(order)[:size].tolist()
    return numbers


def spread(count: int, size: int) -> list[int]:
    """``size`` numbers below ``count``, evenly spaced; each in turn where ``size`` is larger."""
    if size >= count:
        return [i % count for i in range(size)]
    return [i * count // size for i in range(size)]
