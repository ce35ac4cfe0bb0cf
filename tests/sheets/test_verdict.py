"""What is said of a comparison never contradicts the numbers beside it."""

import math
import re

import numpy as np
import pytest

from cab.scoring.comparison import comparison
from cab.scoring.intervals import Interval
from cab.scoring.quality import QualityBoard
from cab.scoring.task_scores import TaskScores
from cab.sheets.comparison import _quality
from cab.sheets.notes import SAME
from cab.sheets.verdict import factor_words
from cab.sheets.words import bounds, digits_of
from cab.track import Track

TRACK = Track("causal-self", "tiny", "cpu")


def board(differences):
    """Two entries whose scores differ so, by task and seed."""
    values = {task: np.array([x, [0.0] * len(x)]) for task, x in differences.items()}
    seeds = {task: tuple(range(len(x))) for task, x in differences.items()}
    return QualityBoard(
        [], list(values), scores=TaskScores(("a", "b"), tuple(values), seeds, values)
    )


def compared(differences):
    return _quality(comparison(board(differences), "a", "b"), TRACK,
                    {"label": "", "other_label": ""}, [])  # fmt: skip


def drawn(number):
    """Differences of all sizes, some far from zero by their noise and some not."""
    generator = np.random.default_rng(number)
    size = 10.0 ** generator.uniform(-6, 1)
    away = size * generator.normal(0, 3)
    return {
        f"t{n}": list(away + size * generator.normal(size=3))
        for n in range(int(generator.integers(1, 6)))
    }


def shown_interval(words):
    return [float(x) for x in re.findall(r"[+-][0-9.]+", words)]


@pytest.mark.parametrize("number", range(60))
def test_words_agree_with_the_numbers_beside_them(number):
    sheet = compared(drawn(number))
    for line in sheet.lines:
        _, difference, interval, p, said = line.shown
        p, seeds = p.removesuffix(")").split(" (")
        assert seeds == "3"
        low, high = shown_interval(interval)
        leaves_out_zero = low > 0 or high < 0
        if said in ("better", "worse"):
            assert leaves_out_zero
            assert float(p.removeprefix("< ")) < 0.05
            assert (float(difference) > 0) is (said == "better")
        else:
            assert said.startswith(SAME)
            assert float(p) >= 0.05
            assert leaves_out_zero is ("among" in said)
    explained = any("among N tasks" in note for note in sheet.notes)
    assert explained is any("among" in line.shown[-1] for line in sheet.lines)
    sentence = str(sheet.about["verdict"])
    low, high = shown_interval(re.search(r"interval (.*?) over seeds", sentence)[1])
    assert (SAME in sentence) is (low <= 0 <= high)
    assert "factor of 1.00" not in sentence


def test_a_task_that_only_the_correction_makes_noise_says_so():
    clear = [0.1, 0.14, 0.12, 0.11]  # by itself beyond doubt
    unclear = [0.02, 0.1, 0.04, 0.06]  # p of about 4 %, one of three tasks
    sheet = compared({"x": unclear, "y": [0.0, 0.1, -0.1, 0.05], "z": [0.1, -0.1, 0.02, 0.0]})
    assert sheet.lines[0].shown[-1] == f"{SAME} among 3 tasks"
    assert any("Holm" in note and "by chance" in note for note in sheet.notes)
    assert compared({"x": clear}).lines[0].shown[-1] == "better"


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (0.0, "neither better nor worse than b"),
        (0.0012, "better than b by 0.12 %"),
        (-0.03, "worse than b by 3.0 %"),
        (-0.00003, "worse than b by less than 0.01 %"),
        (math.log(1.25), "better than b by a factor of 1.25"),
        (-math.log(3), "worse than b by a factor of 3.00"),
    ],
)
def test_sizes_of_differences(difference, words):
    assert factor_words(difference, "b") == words


@pytest.mark.parametrize("scale", [1e-6, 1e-5, 1e-4, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize(("low", "high"), [(0.2, 3.0), (-3.0, -0.001), (-1.0, 2.0)])
def test_no_end_of_an_interval_reads_as_a_zero_that_is_none(scale, low, high):
    found = Interval(scale, scale * low, scale * high, 3)
    assert 0.0 not in shown_interval(bounds(found, digits_of(found)))
