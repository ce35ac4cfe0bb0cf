"""Whether ranks at a multiple of the steps are those at the recipe's own."""

import json
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from cab.regularisers import STEPS
from cab.scoring.correlation import rank_correlation
from cab.scoring.results import load_results, load_scores
from cab.scoring.short_runs import LengthPair, _weighted_rho, mean_correlation, short_runs
from cab.sheets.short_runs import short_runs_sheet, short_runs_words
from cab.store import ResultStore
from cab.track import Setting
from tests.scoring.test_scoring import rows_of

SETTING = Setting("tiny", "cpu")
NAMES = ("abc", "cosformer", "linear-elu", "lla", "softmax")


def pair_of(usual, other, noise=0.001, seeds=3, task="t"):
    """Means by entry, and seeds that differ by little."""
    spread = noise * (np.arange(seeds) - (seeds - 1) / 2)
    grids = [np.array(means, float)[:, None] + spread for means in (usual, other)]
    generator = np.random.default_rng(0)
    grids = [grid + noise * generator.normal(size=grid.shape) for grid in grids]
    return LengthPair("causal-self", task, NAMES[: len(usual)], *grids)


def test_correlation_and_turned_ranks_by_hand():
    # 1 - 6 * 4 / (5 * 24); of ten pairs two swap.
    pair = pair_of([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    assert pair.rho == pytest.approx(0.8)
    assert pair.turned() == (10, 2)


def test_what_seeds_explain_does_not_turn_over():
    assert pair_of([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], noise=9.0).turned() == (0, 0)
    assert pair_of([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], seeds=1).turned() == (0, 0)


def test_samples_are_correlated_as_if_entries_were_repeated():
    generator = np.random.default_rng(1)
    pair = pair_of([1, 2, 2, 4, 5], [3, 1, 4, 3, 3], noise=0.0)
    counts = generator.multinomial(5, np.full(5, 0.2), size=40)
    for count, found in zip(counts, _weighted_rho(pair, counts.astype(float)), strict=True):
        sample = [np.repeat(grid.mean(axis=1), count) for grid in (pair.usual, pair.other)]
        if any(len(set(values)) < 2 for values in sample):
            assert math.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(*sample).statistic)


def test_the_mean_over_tasks_has_a_bootstrap_interval():
    pairs = [pair_of([1, 2, 3, 4, 5], other, task=str(n))
             for n, other in enumerate(([2, 1, 4, 3, 5], [1, 2, 3, 5, 4]))]  # fmt: skip
    found = mean_correlation(pairs)
    assert found.value == pytest.approx((0.8 + 0.9) / 2)
    assert found.n == 5
    assert -1 <= found.low < found.value <= found.high <= 1
    assert mean_correlation(pairs) == found


def test_perfect_agreement_of_a_few_is_not_certain():
    found = mean_correlation([pair_of([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])])
    own = dict(zip(NAMES, range(5), strict=True))
    assert found.value == pytest.approx(1)
    assert found.low == rank_correlation(own, own).low
    turned = mean_correlation([pair_of([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])])
    assert (turned.value, turned.low) == (pytest.approx(-1), pytest.approx(-1))
    assert -1 < turned.high < 0.5


def test_too_few_entries_and_ties_say_nothing():
    assert math.isnan(mean_correlation([]).value)
    assert math.isnan(mean_correlation([pair_of([1, 2, 3, 4], [1, 2, 3, 4])]).value)
    tied = pair_of([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], noise=0.0)
    assert math.isnan(mean_correlation([tied]).value)


@pytest.mark.parametrize(("agreement", "noise"), [(0.6, 0.1), (0.95, 0.1), (0.95, 0.4)])
def test_the_interval_covers_the_truth(agreement, noise):
    # Four tasks, six entries: scores of both lengths are normal with a known correlation.
    generator = np.random.default_rng(2)
    truth = 6 / np.pi * np.arcsin(agreement / 2)
    names, hits = tuple("abcdef"), []
    for _ in range(200):
        pairs = []
        for task in "wxyz":
            usual, own = generator.normal(size=(2, 6, 1))
            other = agreement * usual + math.sqrt(1 - agreement**2) * own
            seeds = noise * generator.normal(size=(2, 6, 3))
            pairs.append(LengthPair("p", task, names, usual + seeds[0], other + seeds[1]))
        found = mean_correlation(pairs, draws=400)
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) >= 0.93


LOSSES = {"softmax": 1.0, "lla": 0.8, "abc": 1.2, "cosformer": 1.4, "linear-elu": 1.6, "none": 3.0}
TURNED = LOSSES | {"lla": 1.2, "abc": 0.8}


def rows_at(multiple, losses, **fields):
    """Rows of one task at a multiple of the steps, every entry with its own little noise."""
    generator = np.random.default_rng(int(10 * multiple))
    scores = {
        (entry, "summarization"): [
            loss * math.exp(generator.normal(0, 0.002)) * (1 + 0.01 * seed) for seed in range(3)
        ]
        for entry, loss in losses.items()
    }
    options = json.dumps({} if multiple == 1 else {STEPS: multiple})
    return rows_of(scores, metric="nll", attention_options=options, run_id=f"{multiple}", **fields)


@pytest.fixture
def store(tmp_path):
    found = ResultStore(tmp_path / "results")
    found.prepare()
    return found


def told(store):
    return short_runs(store, load_scores(store), SETTING)


def test_rows_of_other_lengths_stand_on_no_board_and_say_whether_ranks_stay(store):
    store.append([*rows_at(1, LOSSES), *rows_at(0.5, LOSSES), *rows_at(4, TURNED)])
    for results in (load_scores(store), load_results(store)):
        assert results.multiples == (0.5, 4.0)
        assert len(results.rows) == len(rows_at(1, LOSSES))
        assert set(results.rows["entry"]) == set(LOSSES)
    half, four = told(store)
    assert (half.multiple, four.multiple) == (0.5, 4.0)
    assert half.rho.value == pytest.approx(1)
    assert (half.decided, half.turned) == (10, 0)
    # lla, softmax, abc become abc, softmax, lla: three pairs of ten.
    assert (four.decided, four.turned) == (10, 3)
    assert four.rho.value == pytest.approx(1 - 6 * 8 / (5 * 24))
    assert set(four.pairs[0].entries) == set(LOSSES) - {"none"}
    sheet = short_runs_sheet([half, four], SETTING)
    assert sheet.summary.startswith("RANKS TURN OVER at 4x the steps: of 10 pairs")
    assert "At 0.5x the steps no rank turns over: of 10 pairs" in sheet.summary
    assert sheet.fitted(80).width <= 80
    assert [line.shown[-1] for line in sheet.lines] == ["0 of 10", "0 of 10", "3 of 10", "3 of 10"]


def test_seeds_may_be_others(store):
    few = [row for row in rows_at(4, TURNED) if row.seed < 2]
    store.append([*rows_at(1, LOSSES), *few])
    (four,) = told(store)
    assert (four.pairs[0].usual.shape, four.pairs[0].other.shape) == ((5, 3), (5, 2))
    assert four.rho.value == pytest.approx(0.6)


def test_what_other_code_measured_is_not_compared(store):
    other = [row for row in rows_at(4, TURNED, attention_hash="older") if row.attention == "lla"]
    rest = [row for row in rows_at(4, TURNED) if row.attention != "lla"]
    store.append([*rows_at(1, LOSSES), *rest, *other])
    (four,) = told(store)
    assert four.pairs == ()
    assert four.refused == (("causal-self", "summarization", 4),)
    assert "too few entries" in short_runs_words([four])
    assert "4 entries in common, five are asked for" in short_runs_sheet([four], SETTING).notes[-1]


def test_an_entry_without_all_of_its_seeds_is_left_out(store):
    lost = [row for row in rows_at(4, TURNED) if (row.attention, row.seed) != ("abc", 1)]
    store.append([*rows_at(1, LOSSES), *lost])
    assert told(store)[0].refused[0][2] == 4


def test_nothing_is_said_where_there_is_nothing(store):
    store.append(rows_at(1, LOSSES))
    assert told(store) == []
    assert short_runs_sheet([], SETTING) is None
    assert told(ResultStore(store.root / "other")) == []
    store.append([row for row in rows_at(4, TURNED) if row.attention != "softmax"])
    assert told(store) == []
