"""Streams of random numbers: reproducible, named, and nothing to do with each other."""

import itertools
import math
import subprocess
import sys
from typing import get_args

import pytest
import torch

from cab import seeds

NAMES = get_args(seeds.Stream)


def test_a_stream_is_the_same_in_every_process() -> None:
    code = "from cab import seeds; print(seeds.derive(3, 'dropout', 12, 'x'))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == seeds.derive(3, "dropout", 12, "x")


def test_streams_keep_their_values() -> None:
    """Published numbers hang on them."""
    assert seeds.derive(0, "weights") == 1_625_754_347_246_683_095
    assert seeds.derive(2, "evaluation", "test", 4) == 7_721_492_023_349_326_886


def test_parts_are_told_apart() -> None:
    ways = [(), (1,), ("1",), (1, 1), (11,), ("", ""), ("",), ("a", "b"), ("ab",)]
    found = {
        seeds.derive(seed, name, *parts) for seed in range(3) for name in NAMES for parts in ways
    }
    assert len(found) == 3 * len(NAMES) * len(ways)


def test_no_two_draws_of_a_run_of_runs_share_a_seed() -> None:
    """Sums of seeds met each other: seed 1 at step 5 and seed 0 at step 1,000,008, say. Torch's
    generator takes 32 bits of a seed, so that is what must differ.
    """
    found = [
        seeds.derive(seed, "dropout", step, rank)
        for seed in range(5)
        for step in range(1000)
        for rank in range(2)
    ]
    found += [seeds.derive(seed, name) for seed in range(1000) for name in NAMES]
    low = {value & 0xFFFFFFFF for value in found}
    expected = len(found) ** 2 / 2**33  # collisions by chance
    assert len(found) - len(low) <= expected + 5 * math.sqrt(expected) + 1


def draws(seed: int, name: seeds.Stream, *parts: int | str) -> torch.Tensor:
    return torch.randn(4096, generator=seeds.generator(seed, name, *parts), dtype=torch.float64)


@pytest.mark.parametrize(
    "streams",
    [
        [(seed, "data") for seed in range(8)],
        [(0, name) for name in NAMES],
        [(seed, "dropout", step) for seed in range(3) for step in range(4)],
        [(0, "evaluation", split) for split in ("validation", "test")],
    ],
    ids=["seeds", "names", "steps", "splits"],
)
def test_neighbouring_streams_are_uncorrelated(streams) -> None:
    values = torch.stack([draws(*stream) for stream in streams])
    assert abs(values.mean()) < 5 / math.sqrt(values.numel())
    for one, two in itertools.combinations(values, 2):
        for shift in (0, 1, 7):
            correlation = (one * two.roll(shift)).mean() / (one.std() * two.std())
            assert abs(correlation) < 5 / math.sqrt(len(one))


def test_an_evaluation_has_a_stream_for_each_split_and_use() -> None:
    numbers = [
        torch.randint(1 << 40, (4,), generator=g).tolist()
        for g in (
            seeds.evaluation(0, "test"),
            seeds.evaluation(0, "validation"),
            seeds.evaluation(1, "test"),
            seeds.evaluation(0, "test", 1),
            seeds.generator(0, "data"),
        )
    ]
    assert len({tuple(row) for row in numbers}) == len(numbers)
