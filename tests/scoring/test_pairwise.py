"""Who beats whom, which neighbours the data separate, and what difference they could have seen."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, nct, t

from cab.scoring.adjacent import adjacent
from cab.scoring.detectable import detectable, smallest
from cab.scoring.pairwise import Relation, pairwise
from cab.scoring.ranks import Differences, Pairs, all_pairs
from tests.scoring.simulation import Truth, boards
from tests.scoring.test_ranks import scores_of


def pairs_of(difference, p_here, p_general, seeds=(3, 3)):
    """Of the upper triangles of two matrices of p-values."""
    size = len(difference)

    def whole(upper):
        found = np.full((size, size), np.nan)
        found[np.triu_indices(size, k=1)] = upper
        return np.where(np.isnan(found), found.T, found)

    nothing = Differences(*(np.full((size, size), np.nan),) * 3)
    return Pairs(
        tuple("abcdefg"[:size]), np.asarray(difference, float), whole(p_general), whole(p_here),
        nothing, nothing, seeds,
    )  # fmt: skip


LADDER = [[j - i for j in range(3)] for i in range(3)]
"""a is better than b by 1 and than c by 2"""


def test_relations_are_corrected_for_all_pairs():
    # By hand, Holm: .001 .02 .2 times 3 2 1; .0001 .03 .9 become .0003 .06 .9.
    found = pairwise(pairs_of(LADDER, [0.02, 0.001, 0.2], [0.03, 0.0001, 0.9]), 4)
    assert found.p_here[0, 1] == found.p_here[1, 0] == pytest.approx(0.04)
    assert found.p_general[0, 1] == pytest.approx(0.06)
    assert ["".join(found.row(n)) for n in range(3)] == ["\\>+", "<\\.", "-.\\"]
    assert found.count == 3
    assert found.seeds == (3, 3)


def test_a_single_seed_of_one_task_relates_nothing():
    scores = scores_of({"x": {"softmax": [0.0], "a": [1.0]}})
    pairs = all_pairs([scores], scores.entries)
    assert pairs.seeds == (1, 1)
    assert pairwise(pairs, 1).row(0) == [Relation.ITSELF, Relation.UNKNOWN]
    assert not adjacent(pairs, 1).known
    assert math.isnan(adjacent(pairs, 1).share)
    found = detectable(pairs, 1, pairs.entries)
    assert (found.pairs_here, found.pairs_general) == (0, 0)
    assert math.isnan(found.here)
    assert math.isnan(found.general)


def test_a_single_seed_of_several_tasks_relates_in_general_alone():
    levels = {"x": 1.0, "y": 1.1, "z": 0.9}
    scores = scores_of({t: {"softmax": [0.0], "a": [v]} for t, v in levels.items()})
    pairs = all_pairs([scores], scores.entries)
    assert pairwise(pairs, 3).row(0) == [Relation.ITSELF, Relation.BETTER]
    assert adjacent(pairs, 3).general == adjacent(pairs, 3).here == 1
    found = detectable(pairs, 3, pairs.entries)
    assert (found.pairs_here, found.pairs_general) == (0, 1)
    assert math.isnan(found.here)
    assert found.general > 0
    # Tasks that disagree are not enough, and of these tasks nothing is known.
    scores = scores_of({t: {"softmax": [0.0], "a": [v]} for t, v in (("x", 1.0), ("y", -0.8))})
    pairs = all_pairs([scores], scores.entries)
    assert pairwise(pairs, 2).row(0) == [Relation.ITSELF, Relation.UNKNOWN]


def test_equal_entries_are_the_same_and_seeds_are_those_of_the_tasks():
    row = [0.1, 0.2, 0.3]
    scores = scores_of({"x": {"a": row, "b": row}, "y": {"a": row[:2], "b": row[:2]}})
    pairs = all_pairs([scores], scores.entries)
    assert pairs.seeds == (2, 3)
    assert pairwise(pairs, 2).row(1) == [Relation.SAME, Relation.ITSELF]
    found = detectable(pairs, 2, pairs.entries)
    assert (found.here, found.general) == (0.0, 0.0)


def test_neighbours_are_counted_by_themselves_and_corrected():
    difference = [[j - i for j in range(4)] for i in range(4)]
    # Of neighbours: here .01 .2 .03, in general .04 .3 .2; Holm: .03 .2 .06 and .12 .4 .4.
    here = [0.01, 0.5, 0.5, 0.2, 0.5, 0.03]
    general = [0.04, 0.5, 0.5, 0.3, 0.5, 0.2]
    found = adjacent(pairs_of(difference, here, general), 4)
    assert (found.ranks, found.general, found.here) == (3, 1, 2)
    assert (found.general_corrected, found.here_corrected) == (0, 1)
    assert found.share == pytest.approx(2 / 3)


def test_what_differs_in_general_differs_here():
    # Tasks that agree to the last digit: in general certain, though seeds are too noisy to tell.
    found = adjacent(pairs_of([[0, 1], [-1, 0]], [0.2], [0.01]), 4)
    assert (found.general, found.here) == (1, 1)


def test_a_single_task_says_nothing_of_others():
    # Its p in general is that over its seeds.
    alone = pairs_of(LADDER, [0.001, 0.001, 0.9], [0.001, 0.001, 0.9])
    assert "".join(pairwise(alone, 1).row(0)) == "\\>>"
    assert "".join(pairwise(alone, 2).row(0)) == "\\++"
    found = adjacent(alone, 1)
    assert (found.here, found.general, found.general_corrected) == (1, 0, 0)


def test_one_entry_has_no_neighbour():
    found = adjacent(pairs_of([[0]], [], []), 4)
    assert (found.ranks, found.here, found.known) == (0, 0, False)


@pytest.mark.parametrize("freedom", [1.014, 2.0, 6.0, 1e6])
def test_the_smallest_difference_is_found_four_times_in_five(freedom):
    found = float(smallest(np.array(0.04), np.array(freedom), 0.05))
    error = math.sqrt(0.04 * freedom / chi2.median(freedom))
    critical = t.isf(0.025, freedom)
    assert nct.sf(critical, freedom, found / error) == pytest.approx(0.8, abs=1e-4)


def test_with_many_seeds_it_is_the_normal_rule():
    # 1.960 + 0.842 standard errors.
    assert float(smallest(np.array(1.0), np.array(1e8), 0.05)) == pytest.approx(2.8016, abs=1e-3)


def test_smallest_difference_by_hand():
    # Differences of a and b by seed: .1 .2 .3 on x and .3 .3 .6 on y.
    scores = scores_of({"x": {"a": [0.1, 0.2, 0.3], "b": [0.0] * 3},
                        "y": {"a": [0.3, 0.3, 0.6], "b": [0.0] * 3}})  # fmt: skip
    pairs = all_pairs([scores], scores.entries)
    # Variances .01 and .03 over 3 seeds, a quarter of each: .0033; freedom .0033² / sum(a² / 2).
    variance = (0.01 + 0.03) / 3 / 4
    freedom = variance**2 / (((0.01 / 12) ** 2 + (0.03 / 12) ** 2) / 2)
    assert freedom == pytest.approx(3.2)
    found = detectable(pairs, 2, ("a", "b"))
    assert found.here == pytest.approx(float(smallest(np.array(variance), np.array(3.2), 0.05)))
    # Means .2 and .4: a variance of .02 over 2 tasks, with one degree of freedom.
    assert found.general == pytest.approx(
        float(smallest(np.array(0.01), np.array(1.0), 0.05)), rel=1e-6
    )
    assert found.here_of_all == found.here  # one pair is all pairs
    assert detectable(pairs, 2, ("a",)).pairs_here == 0
    assert math.isnan(
        detectable(all_pairs([scores.only(["x"])], ("a", "b")), 1, ("a", "b")).general
    )


@pytest.mark.parametrize(("tasks", "seeds"), [(3, 3), (6, 3), (5, 5)])
@pytest.mark.parametrize("kind", ["general", "here"])
def test_a_difference_of_that_size_is_found_so_often_on_simulated_boards(kind, tasks, seeds):
    # Without effects of tasks the truth of these tasks is the same on all boards.
    effect = 0.05 if kind == "general" else 0.0

    def simulated(means, count, seed):
        truth = Truth(tasks, seeds, means=means, effect=effect, noise=0.03)
        for board in boards(truth, count, seed):
            yield all_pairs([board.scores], board.scores.entries)

    names = tuple(f"z{n}" for n in range(8))
    designs = [detectable(pairs, tasks, names) for pairs in simulated((0.0,) * 8, 100, 1)]
    size = float(np.median([getattr(design, kind) for design in designs]))
    apart = [
        getattr(pairs, f"p_{kind}")[pairs.index("z0"), pairs.index("z1")] < 0.05
        for pairs in simulated((0.0, size), 1000, 2)
    ]
    # On these tasks the degrees of freedom are estimated too, which errs on the safe side.
    assert 0.76 <= np.mean(apart) <= (0.84 if kind == "general" else 0.88)
