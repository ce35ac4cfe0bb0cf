"""What a board can tell of its tasks: signal to noise, contributions, and all of it together."""

import math

import numpy as np
import pytest
from scipy.stats import f, kendalltau

from cab.schema import table_of
from cab.scoring.contribution import contributions, kendall
from cab.scoring.quality import quality_board
from cab.scoring.resolution import resolution
from cab.scoring.results import current
from cab.scoring.signal import signal_to_noise
from cab.track import Track
from tests.scoring.test_scoring import rows_of

GRID = np.array([[1.0, 3.0], [5.0, 5.0], [9.0, 7.0]])


def test_signal_to_noise_by_hand():
    # Means 2 5 8; residuals -1 1, 0 0, 1 -1: MR = 4 / 2. MB = 2 * 9. Signal² = (18 - 2) / 2.
    found = signal_to_noise(GRID)
    assert found.noise == pytest.approx(math.sqrt(2))
    assert found.signal == pytest.approx(math.sqrt(8))
    assert found.ratio.value == pytest.approx(2)
    assert (found.ratio.n, found.seeds) == (3, 2)
    # F is 9, its quantiles with 2 and 2 degrees of freedom are 39 and 1/39.
    assert f.isf(0.025, 2, 2) == pytest.approx(39)
    assert found.ratio.low == 0
    assert found.ratio.high == pytest.approx(math.sqrt((9 * 39 - 1) / 2))


def test_what_a_seed_does_to_all_entries_is_no_noise():
    shifted = signal_to_noise(GRID + np.array([100.0, -40.0]))
    assert shifted.noise == pytest.approx(math.sqrt(2))
    assert shifted.ratio.value == pytest.approx(2)


def test_signal_below_the_noise_is_zero_and_no_noise_is_certain():
    assert signal_to_noise(np.array([[1.0, -1.0], [-1.0, 1.0]])).ratio.value == 0
    sharp = signal_to_noise(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert (sharp.noise, sharp.ratio.value) == (0, math.inf)
    same = signal_to_noise(np.zeros((3, 3)))
    assert same.signal == 0
    assert math.isnan(same.ratio.value)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (4, 1)])
def test_too_few_entries_or_seeds_say_nothing(shape):
    found = signal_to_noise(np.ones(shape))
    assert math.isnan(found.ratio.value)
    assert math.isnan(found.signal)
    assert not found.ratio.known


def test_the_interval_of_the_ratio_covers_the_truth():
    generator = np.random.default_rng(0)
    truth, hits = 1.5, []
    for _ in range(2000):
        grid = truth * generator.normal(size=(6, 1)) + generator.normal(size=(6, 3))
        found = signal_to_noise(grid + generator.normal(size=(1, 3))).ratio
        hits.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_contributions_by_hand():
    # Indices 2, 1.5, 2.5. Covariances with them, over their spread of .5: -.5 and 1, of tasks.
    means = np.array([[4.0, 0.0], [2.0, 1.0], [0.0, 5.0]])
    first, second = contributions(means, ("x", "y"), ("A", "B", "C"))
    assert (first.share, second.share) == (pytest.approx(-1), pytest.approx(2))
    # C A B becomes C B A without x, and A B C without y.
    assert (first.swapped, first.pairs, first.tau) == (1, 3, pytest.approx(1 / 3))
    assert (first.moved, first.places) == ("A", -1)
    assert (second.swapped, second.tau) == (2, pytest.approx(-1 / 3))
    assert (second.moved, second.places) == ("C", -2)


def test_a_single_task_decides_everything_and_has_no_ranking_without_it():
    (only,) = contributions(np.array([[1.0], [2.0], [4.0]]), ("x",), ("A", "B", "C"))
    assert only.share == pytest.approx(1)
    assert math.isnan(only.tau)
    assert (only.swapped, only.moved) == (0, "")


def test_ties_and_equal_entries():
    tied = contributions(np.ones((3, 2)), ("x", "y"), ("A", "B", "C"))
    assert all(math.isnan(c.share) and math.isnan(c.tau) and not c.moved for c in tied)
    assert contributions(np.ones((2, 2)), ("x", "y"), ("A", "B")) == ()
    generator = np.random.default_rng(3)
    for _ in range(20):
        one, other = generator.integers(4, size=(2, 7)).astype(float)
        assert kendall(one, other) == pytest.approx(kendalltau(one, other).statistic)


LOSSES = {"softmax": 1.0, "softmax-exact": 1.0, "none": 5.0, "lla": 0.5, "abc": 0.8, "local": 2.0}


def board_of(losses, seeds=3, lacking=(), tasks=("p", "q", "r")):
    """Losses that a seed shifts alike, and by an entry's own little; less of it on later tasks."""
    generator = np.random.default_rng(0)
    scores = {
        (entry, task): [
            level * (1 + 0.01 * seed) * math.exp(generator.normal(0, 0.02 / (1 + n)))
            for seed in range(seeds)
        ]
        for entry, level in losses.items()
        for n, task in enumerate(tasks)
        if (entry, task) not in lacking
    }
    results = current(table_of(rows_of(scores)).to_pandas(), {}, installed=lambda name: ())
    headline = {task: ["loss"] for task in tasks}
    return quality_board(results, Track("causal-self", "tiny", "cpu"), headline)


def test_a_board_says_all_of_it():
    found = resolution(board_of(LOSSES))
    assert found.entries[0] == "lla"
    assert found.mechanisms == ("lla", "abc", "softmax", "local")
    assert found.seeds == (3, 3)
    assert found.unranked == ()
    assert found.signals["p"].ratio.n == 4
    assert found.signals["r"].ratio.value > found.signals["p"].ratio.value > 1
    assert sum(c.share for c in found.contributions) == pytest.approx(1)
    assert found.contribution("p").tau == 1
    assert found.contribution("absent") is None
    assert found.adjacent.ranks == 5
    assert found.adjacent.here >= 4
    assert found.detectable.pairs_here == 6
    assert 0 < found.detectable.here < found.detectable.here_of_all


def test_an_entry_that_lacks_a_task_counts_where_it_has_one():
    found = resolution(board_of(LOSSES, lacking={("abc", "q")}))
    assert found.unranked == ("abc",)
    assert "abc" not in found.entries
    assert found.signals["p"].ratio.n == 4
    assert found.signals["q"].ratio.n == 3
    assert found.contributions[0].pairs == 3


def test_one_task():
    found = resolution(board_of(LOSSES, tasks=("p",)))
    assert math.isnan(found.detectable.general)
    assert math.isfinite(found.detectable.here)
    assert math.isnan(found.contributions[0].tau)


def test_one_seed_says_what_differs_in_general_alone():
    found = resolution(board_of(LOSSES, seeds=1))
    assert found.seeds == (1, 1)
    assert math.isnan(found.detectable.here)
    assert math.isfinite(found.detectable.general)
    assert not resolution(board_of(LOSSES, seeds=1, tasks=("p",))).adjacent.known
    assert math.isnan(found.signals["p"].ratio.value)
    assert found.contributions[0].tau == 1


def test_seeds_that_softmax_lacks_do_not_count_and_one_that_was_lost_unranks_an_entry():
    scores = {(entry, task): [level, level * 1.1, level * 0.9]
              for entry, level in LOSSES.items() for task in "pq"}  # fmt: skip
    scores["softmax", "q"] = scores["softmax", "q"][:2]
    scores["abc", "p"] = [scores["abc", "p"][0], math.nan]
    results = current(table_of(rows_of(scores)).to_pandas(), {}, installed=lambda name: ())
    board = quality_board(results, Track("causal-self", "tiny", "cpu"), {"p": ["loss"]})
    found = resolution(board)
    assert found.seeds == (2, 3)
    assert found.unranked == ("abc",)
    assert (found.signals["p"].seeds, found.signals["q"].seeds) == (3, 2)


@pytest.mark.parametrize("losses", [{}, {"softmax": 1.0}])
def test_a_board_of_one_entry_says_nothing(losses):
    assert resolution(board_of(losses)) is None
