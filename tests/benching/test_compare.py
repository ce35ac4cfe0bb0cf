"""One sweep beside another: what is slower, what is noise, what cannot be told."""

import dataclasses
from pathlib import Path

import pytest

from cab.benching.compare import FASTER, SAME, SLOWER, UNKNOWN, Earlier, comparison_sheet
from cab.errors import UsageError
from cab.scoring.curves import Curves
from cab.track import Setting

TOLERANCE = 0.05
SETTING = Setting("B1 H4 D32 float32", "cpu")


def curve(*seconds, length=256, **fields):
    """Each number is the latency of a process; the baseline takes a hundredth."""
    samples = {
        "latency": {length: [[s] for s in seconds]},
        "latency_softmax": {length: [[s / 100] for s in seconds]},
    }
    made = Curves("mine", "causal-self", "forward", samples, {}, setting=SETTING)
    return dataclasses.replace(made, keys={length: length}, **fields)


def verdict(old, new):
    (change,) = Earlier(Path("old"), [curve(*old)], frozenset()).changes([curve(*new)])
    return change.verdict(TOLERANCE)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ((1.0, 1.001, 1.002), (1.2, 1.201, 1.202), SLOWER),
        ((1.2, 1.201, 1.202), (1.0, 1.001, 1.002), FASTER),
        # Beyond the noise, and within the tolerance.
        ((1.0, 1.001, 1.002), (1.03, 1.031, 1.032), SAME),
        # Beyond the tolerance, and within the noise.
        ((1.0, 1.1, 1.2), (1.1, 1.2, 1.3), SAME),
        ((1.0,), (9.0,), UNKNOWN),
        ((1.0, 1.001, 1.002), (0.1, 5.0, 90.0), UNKNOWN),
    ],
)
def test_verdicts(old, new, said):
    assert verdict(old, new) == said


def test_points_of_other_sizes_are_not_joined():
    old = Earlier(Path("old"), [curve(1.0, 1.0)], frozenset())
    for other in (
        curve(1.0, 1.0, length=512),
        dataclasses.replace(curve(1.0, 1.0), setting=Setting("B2 H4 D32 float32", "cpu")),
        dataclasses.replace(curve(1.0, 1.0), phase="decode"),
        dataclasses.replace(curve(1.0, 1.0), setting=Setting("B1 H4 D32 float32", "cuda")),
        dataclasses.replace(curve(1.0, 1.0), keys={256: 64}),
    ):
        with pytest.raises(UsageError, match="none of its points"):
            old.changes([other])


def test_the_baseline_stands_beside_where_it_is_the_same():
    old = Earlier(Path("old"), [curve(1.0, 1.0, 1.0)], frozenset())
    (same,) = old.changes([curve(2.0, 2.0, 2.0)])
    assert same.baseline == pytest.approx(2.0)
    (other,) = old.changes([curve(2.0, 2.0, 2.0, baseline="flex")])
    assert other.baseline != other.baseline
    words = comparison_sheet([same], TOLERANCE, old.place).lines[0].shown
    assert words[:3] == ("256", "mine", "fwd")
    assert SLOWER in words
    assert "2.00x (2.00-2.00)" in words
