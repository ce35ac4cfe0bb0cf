"""What must not change a leaderboard, and what must never help."""

import numpy as np
import pandas as pd
import pytest

from cab.scoring.overall import overall
from cab.scoring.quality import quality_board
from cab.scoring.results import current
from cab.track import Track

HEADLINE = {"loss-task": ["loss", "error"], "score-task": ["score"], "other": ["loss"]}
HIGHER = {"score"}
ENTRIES = ("softmax", "none", "alpha", "beta", "gamma")


def table(seed=0, entries=ENTRIES, seeds=3, pattern="causal-self"):
    """Rows as a store would give them, with clear differences and some noise."""
    generator = np.random.default_rng(seed)
    rows = []
    for place, entry in enumerate(entries):
        for task, metrics in HEADLINE.items():
            level = {"softmax": 0.0, "none": -1.5}.get(entry, generator.normal(0, 0.2))
            for training in range(seeds):
                for metric in metrics:
                    better = level + generator.normal(0, 0.03)
                    value = 2 * np.exp(better if metric in HIGHER else -better)
                    rows.append((entry, place, task, metric, training, value, metric in HIGHER))
    columns = ["attention", "place", "task", "metric", "seed", "value", "higher_is_better"]
    frame = pd.DataFrame(rows, columns=columns)
    cell = frame["attention"] + frame["task"] + frame["seed"].astype(str) + pattern
    return frame.drop(columns="place").assign(
        cell=cell, run_id="r", kind="quality", status="ok", phase="eval", pattern=pattern,
        scale="tiny", device="cpu", grade="faithful", attention_options="{}", task_hash="t",
        data_hash="d", attention_hash="h", recorded_at=pd.Timestamp("2026-01-01", tz="UTC"),
    )  # fmt: skip


def board(rows, headline=HEADLINE):
    return quality_board(current(rows, {}), Track("causal-self", "tiny", "cpu"), headline)


def places(found):
    return {s.entry: n for n, s in enumerate(found.standings)}


@pytest.mark.parametrize("seed", range(5))
def test_adding_an_entry_changes_no_other_index(seed):
    rows = table(seed)
    extra = table(seed + 100, entries=("new",))
    before, after = board(rows), board(pd.concat([rows, extra]))
    for standing in before.standings:
        assert after.standing(standing.entry).index == standing.index
        assert after.standing(standing.entry).here == standing.here
        assert after.standing(standing.entry).tasks == standing.tasks


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_changes_nothing(seed):
    rows = table(seed)
    shuffled = rows.sample(frac=1, random_state=seed)
    assert board(shuffled).standings == board(rows).standings


@pytest.mark.parametrize("seed", range(5))
def test_names_change_nothing(seed):
    rows = table(seed)
    new = {"alpha": "zeta", "beta": "aardvark", "gamma": "middle"}
    tasks = {"loss-task": "z", "score-task": "a", "other": "k"}
    renamed = rows.assign(
        attention=rows["attention"].replace(new),
        task=rows["task"].replace(tasks),
        cell=rows["cell"].map(hash).astype(str),
    )
    headline = {tasks[name]: metrics for name, metrics in HEADLINE.items()}
    before, after = board(rows), board(renamed, headline)
    for old in before.standings:
        found = after.standing(new.get(old.entry, old.entry))
        assert found.index.value == pytest.approx(old.index.value)
        assert found.index.low == pytest.approx(old.index.low)
        assert found.here.low == pytest.approx(old.here.low)
        assert (found.rank, found.ranks, found.separation) == (old.rank, old.ranks, old.separation)
        assert found.rating.strength.value == pytest.approx(old.rating.strength.value, abs=1e-9)


def losses(rows):
    """Ways of losing results of one entry: a task, a seed before another one, a metric of a seed, a
    cell that was tried.
    """
    own = rows["attention"] == "alpha"
    for task in HEADLINE:
        yield rows[~(own & (rows["task"] == task))]
        for seed in range(3):
            cell = own & (rows["task"] == task) & (rows["seed"] == seed)
            if seed < 2:
                yield rows[~cell]
            if len(HEADLINE[task]) > 1:
                yield rows[~(cell & (rows["metric"] == HEADLINE[task][0]))]
            yield rows.assign(value=rows["value"].mask(cell))
            yield pd.concat([rows[~cell], rows[cell][:1].assign(status="diverged", metric="")])


@pytest.mark.parametrize("seed", range(8))
def test_a_missing_cell_never_helps(seed):
    rows = table(seed)
    whole = board(rows)
    before = whole.standing("alpha")
    for less in losses(rows):
        found = board(less)
        after = found.standing("alpha")
        assert after.missing
        assert after.rank is None
        assert np.isnan(after.index.value)
        assert places(found)["alpha"] >= places(whole)["alpha"]
        assert after.rating.strength.value <= before.rating.strength.value + 1e-9
        # The others neither lose nor gain an index.
        for name in set(ENTRIES) - {"alpha"}:
            assert found.standing(name).index == whole.standing(name).index


@pytest.mark.parametrize("lost", [1, 2])
def test_an_entry_with_fewer_seeds_counts_with_the_first_ones_of_every_task(lost):
    rows = table(1)
    own, last = rows["attention"] == "alpha", rows["seed"] >= 3 - lost
    found = board(rows[~(own & last & (rows["task"] == "other"))])
    # Which tasks lack them makes no difference, so none is worth losing.
    assert found.standings == board(rows[~(own & last)]).standings
    standing = found.standing("alpha")
    assert standing.seeds == (3 - lost, 3 - lost)
    assert standing.rank is not None
    scores = [board(rows).scores.of("alpha", task)[: 3 - lost].mean() for task in HEADLINE]
    assert standing.index.value == pytest.approx(np.mean(scores))
    assert standing.index.known
    assert standing.here.known == (lost == 1)
    for name in set(ENTRIES) - {"alpha"}:
        assert found.standing(name).index == board(rows).standing(name).index
        assert found.standing(name).ranks


def test_a_second_missing_cell_does_not_help_either():
    rows = table(3)
    own = rows["attention"] == "alpha"
    one = rows[~(own & (rows["task"] == "other"))]
    both = one[~((one["attention"] == "alpha") & (one["task"] == "score-task"))]
    strength = [board(r).standing("alpha").rating.strength.value for r in (rows, one, both)]
    assert strength == sorted(strength, reverse=True)


def test_a_seed_that_softmax_lacks_is_not_missed():
    rows = table(0)
    more = table(0, entries=("alpha",), seeds=5)
    others = rows[rows["attention"] != "alpha"]
    assert not board(pd.concat([others, more])).standing("alpha").missing


def test_a_lost_metric_is_not_an_advantage():
    # Were the median taken over what is left, losing the worse metric would help.
    rows = table(0)
    bad = (rows["attention"] == "beta") & (rows["metric"] == "error")
    rows.loc[bad, "value"] *= 50
    assert board(rows).standing("beta").rank is not None
    assert board(rows[~bad]).standing("beta").missing == ("loss-task",)


def test_scores_are_bounded():
    rows = table(0)
    bad = (rows["attention"] == "beta") & (rows["task"] == "score-task")
    rows.loc[bad, "value"] = 0.0
    assert board(rows).standing("beta").tasks["score-task"] == pytest.approx(-np.log(100))


def test_the_overall_index_is_the_mean_over_patterns():
    boards = {}
    for pattern, seed in (("causal-self", 0), ("noncausal-self", 1)):
        results = current(table(seed, pattern=pattern), {})
        boards[pattern] = quality_board(results, Track(pattern, "tiny", "cpu"), HEADLINE)
    found = {s.entry: s for s in overall(boards)}
    for entry in ENTRIES:
        by_pattern = [b.standing(entry).index.value for b in boards.values()]
        assert found[entry].index.value == pytest.approx(np.mean(by_pattern))
    assert [s.rank for s in overall(boards)] == [1, 2, 3, 4, 5]


def test_an_entry_of_one_pattern_has_no_overall_index():
    boards = {}
    for pattern, entries in (("causal-self", ENTRIES), ("noncausal-self", ENTRIES[:-1])):
        results = current(table(0, entries=entries, pattern=pattern), {})
        boards[pattern] = quality_board(results, Track(pattern, "tiny", "cpu"), HEADLINE)
    last = overall(boards)[-1]
    assert (last.entry, last.rank, last.missing) == ("gamma", None, ("noncausal-self",))
    assert np.isfinite(last.rating.chance.value)


def test_without_softmax_nobody_is_ranked():
    rows = table(0)
    found = board(rows[rows["attention"] != "softmax"])
    assert all(s.rank is None and s.missing for s in found.standings)
    assert overall({"causal-self": found}) == []
    # On a task that only softmax lacks, nobody has a score, and so no index.
    lost = (rows["attention"] == "softmax") & (rows["task"] == "other")
    found = board(rows[~lost])
    assert all(s.missing == ("other",) for s in found.standings)
    assert overall({"causal-self": found, "noncausal-self": board(rows)})[0].rank == 1
