"""Holm's correction, intervals of ranks, groups; Bradley and Terry's strengths."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from cab.scoring.bradley_terry import ratings
from cab.scoring.ranks import all_pairs, groups, holm, rank_interval, significant_pairs
from cab.scoring.task_scores import TaskScores


def scores_of(grids):
    """{task: {entry: scores by seed}}"""
    entries = tuple(sorted({entry for grid in grids.values() for entry in grid}))
    values = {}
    for task, grid in grids.items():
        seeds = max(len(row) for row in grid.values())
        values[task] = np.array([grid.get(entry, [np.nan] * seeds) for entry in entries], float)
    seeds = {task: tuple(range(grid.shape[1])) for task, grid in values.items()}
    return TaskScores(entries, tuple(grids), seeds, values)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, made monotone.
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])


def test_holm_leaves_out_what_is_not_known():
    adjusted = holm(np.array([0.01, np.nan, 0.5]))
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.5])
    assert np.isnan(adjusted[1])


CLEAR = scores_of(
    {
        f"task{n}": {
            "softmax": [0.0, 0.0, 0.0],
            "best": [1.0 + 0.01 * n, 1.01, 0.99],
            "twin": [1.0, 1.01 - 0.01 * n, 0.99 + 0.005 * n],
            "worst": [-1.0 - 0.01 * n, -1.01, -0.99],
        }
        for n in range(4)
    }
)


def test_clear_ranks_are_single_and_tied_ones_are_not():
    pairs = all_pairs([CLEAR], CLEAR.entries)
    assert rank_interval(pairs, "softmax") == (3, 3)
    assert rank_interval(pairs, "worst") == (4, 4)
    assert rank_interval(pairs, "best") == (1, 2)
    assert rank_interval(pairs, "twin") == (1, 2)


def test_groups_are_runs_of_which_no_two_differ():
    pairs = all_pairs([CLEAR], CLEAR.entries)
    order = ["best", "twin", "softmax", "worst"]
    assert groups(order, pairs, significant_pairs(pairs)) == [("best", "twin")]
    # a and c differ, b from neither: two overlapping runs.
    differs = np.zeros((3, 3), bool)
    differs[0, 2] = differs[2, 0] = True
    three = all_pairs([scores_of({"t": {n: [0.0, 0.1] for n in "abc"}})], ("a", "b", "c"))
    assert groups(["a", "b", "c"], three, differs) == [("a", "b"), ("b", "c")]


def test_a_single_seed_says_nothing_of_one_task():
    scores = scores_of({"x": {"softmax": [0.0], "a": [1.0]}})
    pairs = all_pairs([scores], scores.entries)
    assert np.isnan(pairs.p_here[0, 1])
    assert np.isnan(pairs.p_general[0, 1])
    assert not pairs.known("a")
    assert rank_interval(pairs, "a") == (1, 2)


def test_a_single_seed_of_several_tasks_is_judged_by_the_spread_between_them():
    grid = {"x": 0.9, "y": 1.0, "z": 1.3}
    scores = scores_of({t: {"softmax": [0.0], "a": [v]} for t, v in grid.items()})
    pairs = all_pairs([scores], scores.entries)
    assert np.isnan(pairs.p_here[0, 1])
    assert pairs.p_general[0, 1] == pytest.approx(ttest_1samp(list(grid.values()), 0).pvalue)
    assert rank_interval(pairs, "a") == (1, 1)


def test_two_entries_are_compared_under_the_seeds_that_both_have():
    generator = np.random.default_rng(1)
    grids = {t: generator.normal(size=(3, 3)) for t in "xyz"}
    for grid in grids.values():
        grid[2, 1:] = np.nan
    scores = scores_of(
        {t: dict(zip(("softmax", "a", "b"), g, strict=True)) for t, g in grids.items()}
    )
    places = [scores.entries.index(e) for e in ("a", "b")]
    pairs = all_pairs([scores], scores.entries)
    first = [grid[1, 0] - grid[2, 0] for grid in grids.values()]
    assert pairs.p_general[*places] == pytest.approx(ttest_1samp(first, 0).pvalue)
    assert np.isnan(pairs.p_here[*places])
    assert pairs.seeds == (1, 3)
    whole = all_pairs([scores], ("a", "softmax"))
    assert np.isfinite(whole.p_here[0, 1])


def test_p_values_of_pairs_are_those_of_paired_t_tests():
    generator = np.random.default_rng(0)
    scores = scores_of({t: {e: generator.normal(size=3) for e in ("softmax", "a")} for t in "xyzw"})
    means = scores.means()
    pairs = all_pairs([scores], scores.entries)
    assert pairs.p_general[0, 1] == pytest.approx(ttest_1samp(means[0] - means[1], 0).pvalue)
    one = scores.only(["x"])
    difference = one.values["x"][0] - one.values["x"][1]
    pairs = all_pairs([one], one.entries)
    assert pairs.p_here[0, 1] == pytest.approx(ttest_1samp(difference, 0).pvalue)
    assert pairs.p_general[0, 1] == pairs.p_here[0, 1]


def test_strength_of_two_has_a_closed_form():
    # a wins three tasks of five and draws one; a drawn game more: 4 wins of 6 games.
    tasks = {
        "won1": [1.0, 1.1], "won2": [1.0, 1.1], "won3": [1.0, 1.1],
        "drawn": [-1.0, 1.0], "lost": [-1.0, -1.1],
    }  # fmt: skip
    scores = scores_of({t: {"softmax": [0.0, 0.0], "a": row} for t, row in tasks.items()})
    rating = ratings(scores)["a"]
    assert rating.strength.value == pytest.approx(math.log(4 / 2))
    assert rating.chance.value == pytest.approx(4 / 6)
    assert ratings(scores)["softmax"].strength.value == 0.0
    assert rating.games == 5


def test_strength_is_the_maximum_of_the_likelihood():
    from scipy.optimize import minimize

    generator = np.random.default_rng(1)
    names = ("softmax", "a", "b", "c")
    scores = scores_of(
        {
            str(t): {e: generator.normal(0.8 * n, 1, size=3) for n, e in enumerate(names)}
            for t in range(6)
        }
    )
    wins = np.full((4, 4), 0.5)
    for grid in scores.values.values():
        for i in range(4):
            for j in range(4):
                d = grid[i] - grid[j]
                t = abs(d.mean()) / (d.std(ddof=1) / math.sqrt(3)) if i != j else 0.0
                wins[i, j] += (d.mean() > 0) if t > 4.302653 else 0.5
    np.fill_diagonal(wins, 0)
    anchor = scores.entries.index("softmax")

    def loss(free):
        s = np.insert(free, anchor, 0.0)
        return (wins * np.log1p(np.exp(s[None, :] - s[:, None]))).sum()

    best = np.insert(minimize(loss, np.zeros(3), tol=1e-12).x, anchor, 0.0)
    found = [ratings(scores)[e].strength.value for e in scores.entries]
    assert found == pytest.approx(best, abs=1e-4)


def test_what_is_missing_widens_the_upper_end():
    grids = {
        str(t): {"softmax": [0.0, 0.0, 0.0], "a": [1.0, 1.1, 0.9], "b": [-1.0, -1.1, -0.9]}
        for t in range(4)
    }
    whole = ratings(scores_of(grids))["a"]
    del grids["0"]["a"]
    partial = ratings(scores_of(grids))["a"]
    assert partial.games == 3
    assert partial.strength.value < whole.strength.value
    assert partial.strength.high > partial.strength.value
