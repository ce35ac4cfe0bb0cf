"""What counting predicts."""

from __future__ import annotations

import math

import pytest
import torch

from tasks.problems.context_counts import ADDED, bits_per_symbol


def test_frequencies_without_a_context_by_hand() -> None:
    train, test = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1])
    odds = [(3 + ADDED) / 5, (1 + ADDED) / 5]
    expected = -sum(math.log2(p) for p in odds) / 2
    assert bits_per_symbol(((), train), ((), test), 2) == pytest.approx(expected)


def test_a_symbol_that_its_context_tells_costs_next_to_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(3, (2, 20_000), generator=generator)
    symbols = (first + second) % 3
    parts = (first, second)
    assert bits_per_symbol((parts, symbols), (parts, symbols), 3) < 0.01
    for one in parts:
        bits = bits_per_symbol(((one,), symbols), ((one,), symbols), 3)
        assert bits == pytest.approx(math.log2(3), abs=0.01)


def test_what_never_occurred_is_possible_and_symbols_alike_there() -> None:
    empty = torch.zeros(0, dtype=torch.long)
    test = torch.tensor([[0, 3], [2, 1]])
    missing = torch.full_like(test, 4)
    bits = bits_per_symbol(((empty,), empty), ((missing,), test), 4)
    assert bits == pytest.approx(2)
