"""Which rows count: one version, one machine, one row for each number, the user's own first."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cab.label import Label
from cab.schema import Row, table_of
from cab.scoring.cost import AXES, costs
from cab.scoring.efficiency import cost_points
from cab.scoring.quality import quality_board
from cab.scoring.results import current, entry_labels
from cab.scoring.versions import Machine, Stale
from cab.track import Track

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(days=1)
TRACK = Track("causal-self", "tiny", "cpu")
REFERENCE, OWN = Label.REFERENCE.value, Label.SELF_REPORTED.value
HEADLINE = {task: ["loss"] for task in "abcd"}


def quality(entry, tasks, value=1.0, seeds=3, at=START, label=OWN, **fields):
    """A row per task and seed; key and run follow from what is given, as those of real cells."""
    rows = []
    for task in tasks:
        for seed in range(seeds):
            base = {
                "kind": "quality", "attention": entry, "attention_hash": "h", "grade": "faithful",
                "attention_options": "{}", "pattern": "causal-self", "task": task, "task_hash": "t",
                "data_hash": "d", "scale": "tiny", "device": "cpu", "seed": seed, "phase": "eval",
                "metric": "loss", "value": value + seed / 100, "higher_is_better": False,
            } | fields  # fmt: skip
            named = (base["attention_hash"], base["task_hash"], base["data_hash"])
            base.setdefault("cell", f"{entry} {task} {seed} {named}")
            base.setdefault("run_id", f"run {at} {label}")
            rows.append(Row(recorded_at=at, label=label, **base))
    return rows


def cost(entry, seconds=(1.0, 1.1, 0.9), at=START, label=OWN, machine="A CPU", **fields):
    """A row per process."""
    rows = []
    for seed, value in enumerate(seconds):
        [row] = quality(entry, [""], seeds=1, at=at, label=label)
        made = {
            "kind": "efficiency", "seed": seed, "phase": "forward", "length_q": 256,
            "length_k": 256, "metric": "latency", "value": value, "samples": [value, value * 1.01],
            "device_name": machine, "threads": 2, "cell": f"{entry} cost {seed} {machine}",
            "batch": 1, "heads": 4, "head_dim": 16, "dtype": "float32",
        } | fields  # fmt: skip
        rows.append(replace(row, **made))
    return rows


def of(*parts, installed=None, shuffled=False):
    rows = [row for part in parts for row in part]
    if shuffled:
        random.Random(0).shuffle(rows)
    known = installed or {}
    return current(
        table_of(rows).to_pandas(),
        {},
        lambda attention: [known[attention]] if attention in known else [],
    )


def numbers(results):
    """What an index is made of, whatever else differs."""
    columns = ["entry", "task", "seed", "metric", "value", "attention_hash", "task_hash", "label"]
    rows = results.rows[columns].astype(str)
    return sorted(rows.itertuples(index=False, name=None))


# Versions of a mechanism ----------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["lla", "softmax", "none", "softmax-exact"])
def test_an_index_has_one_version_of_every_entry(entry):
    old = quality(entry, "abc")
    new = quality(entry, "a", at=LATER, attention_hash="new")
    results = of(old, new, quality("other", "abc"), shuffled=True)
    assert set(results.select(entry=entry)["attention_hash"]) == {"new"}
    assert set(results.select(entry=entry)["task"]) == {"a"}
    assert results.superseded == 9
    assert results.stale == tuple(Stale(TRACK, entry, task, False) for task in "bc")
    assert set(results.select(entry="other")["task"]) == set("abc")


def test_someone_who_changes_a_mechanism_and_runs_one_task_sees_that_task_alone():
    reference = [
        row
        for name, value in (("softmax", 1.0), ("none", 2.0), ("lla", 0.5), ("abc", 0.9))
        for row in quality(name, "abc", value, at=LATER, label=REFERENCE)
    ]
    own = quality("lla", "a", 0.4, attention_hash="mine")
    board = quality_board(of(reference, own), TRACK, HEADLINE)
    lla = board.standing("lla")
    assert lla.missing == ("b", "c")
    assert lla.rank is None
    assert lla.label == OWN
    assert board.standing("abc").label == REFERENCE
    assert board.standing("abc").index.n
    one = quality_board(of(reference, own), TRACK, HEADLINE, ["a"])
    assert one.standings[0].entry == "lla"
    assert not one.standings[0].missing


def test_the_version_that_is_installed_counts_where_it_was_measured():
    old = quality("lla", "abc", at=LATER, attention_hash="experiment")
    mine = quality("lla", "ab", attention_hash="here")
    theirs = quality("lla", "abc", label=REFERENCE, attention_hash="there")
    for installed, tasks in (("here", "ab"), ("there", "abc"), ("experiment", "abc")):
        results = of(old, mine, theirs, installed={"lla": installed}, shuffled=True)
        assert set(results.rows["attention_hash"]) == {installed}
        assert "".join(sorted(results.rows["task"].unique())) == tasks
    # Of no version that was measured: the newest of the user's own.
    results = of(old, mine, theirs, installed={"lla": "unmeasured"})
    assert set(results.rows["attention_hash"]) == {"experiment"}


def test_old_controls_of_the_user_do_not_hide_the_reference_of_the_installed_code():
    own = quality("softmax", "a", attention_hash="old", at=LATER)
    theirs = quality("softmax", "abc", label=REFERENCE, attention_hash="new")
    results = of(own, theirs, installed={"softmax": "new"})
    assert set(results.rows["label"]) == {REFERENCE}
    assert set(results.rows["task"]) == set("abc")


def test_versions_are_chosen_by_track():
    rows = quality("lla", "ab") + quality("lla", "a", at=LATER, attention_hash="new")
    elsewhere = quality("lla", "ab", pattern="noncausal-self", cell="x")
    results = of(rows, [replace(row, cell=f"x{n}") for n, row in enumerate(elsewhere)])
    assert set(results.select(pattern="noncausal-self")["attention_hash"]) == {"h"}


# Versions of a task ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["task_hash", "data_hash"])
@pytest.mark.parametrize("newer", [OWN, REFERENCE])
def test_all_entries_of_a_task_are_compared_under_its_newest_version(what, newer):
    older = OWN if newer == REFERENCE else REFERENCE
    old = quality("softmax", "ab", label=older) + quality("lla", "ab", label=older)
    new = quality("softmax", "a", at=LATER, label=newer, **{what: "new"})
    results = of(old, new, shuffled=True)
    assert set(results.select(task="a")["entry"]) == {"softmax"}
    assert set(results.select(task="a")[what]) == {"new"}
    assert set(results.select(task="b")["entry"]) == {"softmax", "lla"}
    assert results.stale == (Stale(TRACK, "lla", "a", True),)


# The user's own and the reference -------------------------------------------------------------


@pytest.mark.parametrize("own_is_later", [True, False])
def test_own_rows_win_over_reference_rows_of_the_same_cell(own_is_later):
    times = (START, LATER) if own_is_later else (LATER, START)
    theirs = quality("lla", "ab", 1.0, at=times[0], label=REFERENCE)
    own = quality("lla", "a", 2.0, at=times[1])
    results = of(theirs, own, shuffled=True)
    assert set(results.select(task="a")["value"]) == {2.0, 2.01, 2.02}
    assert entry_labels(results.select(task="a")) == {"lla": OWN}
    assert entry_labels(results.select(task="b")) == {"lla": REFERENCE}
    assert entry_labels(results.rows) == {"lla": f"{OWN}, {REFERENCE}"}
    assert results.superseded == 0


def test_own_rows_win_over_reference_rows_of_the_same_seed_under_another_key():
    theirs = quality("lla", "a", 1.0, seeds=5, at=LATER, label=REFERENCE)
    own = [replace(row, cell=f"other {row.cell}") for row in quality("lla", "a", 2.0)]
    values = of(theirs, own).select(task="a").set_index("seed")["value"]
    assert dict(values) == {0: 2.0, 1: 2.01, 2: 2.02, 3: 1.03, 4: 1.04}


def test_an_own_failure_is_not_replaced_by_the_references_success():
    theirs = quality("lla", "a", label=REFERENCE)
    failed = {"status": "diverged", "phase": None, "metric": "", "value": None}
    own = [replace(row, **failed) for row in quality("lla", "a")]
    results = of(theirs, own)
    assert set(results.rows["status"]) == {"diverged"}


def test_the_order_of_rows_changes_nothing():
    parts = [
        quality("lla", "abc", label=REFERENCE),
        quality("lla", "ab", 2.0, at=LATER),
        quality("softmax", "abc", label=REFERENCE),
        quality("softmax", "a", at=LATER + timedelta(hours=1), task_hash="new"),
        cost("lla"), cost("softmax", label=REFERENCE, at=LATER),
    ]  # fmt: skip
    plain = of(*parts)
    assert numbers(of(*parts, shuffled=True)) == numbers(plain)
    assert numbers(of(*reversed(parts))) == numbers(plain)


# Copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 2, 5])
@pytest.mark.parametrize("label", [OWN, REFERENCE])
def test_copies_of_rows_count_once(copies, label):
    rows = quality("softmax", "a") + quality("lla", "a", 0.5) + cost("lla") + cost("softmax")
    once = of(rows)
    copied = [replace(row, label=label) for row in rows]
    again = of(rows, *[copied] * copies, shuffled=True)
    assert numbers(again) == numbers(once)
    assert cost_points(again, TRACK) == cost_points(once, TRACK)
    assert costs(again, TRACK, AXES[0]) == costs(once, TRACK, AXES[0])
    place = (TRACK, HEADLINE)
    assert quality_board(again, *place).standings == quality_board(once, *place).standings


def test_a_copied_cost_file_does_not_narrow_the_interval_even_under_other_names():
    once = of(cost("lla", seconds=(1.0, 1.3, 0.8)))
    renamed = [
        replace(row, cell=f"copy of {row.cell}", run_id="copy")
        for row in cost("lla", seconds=(1.0, 1.3, 0.8), at=LATER)
    ]
    [point] = cost_points(of(cost("lla", seconds=(1.0, 1.3, 0.8)), renamed), TRACK)
    assert point.latency.n == 3
    assert point.latency == cost_points(once, TRACK)[0].latency


def test_a_cell_measured_twice_counts_with_its_newest_run():
    twice = cost("lla", at=LATER, seconds=(3.0, 3.1, 2.9), run_id="second")
    [point] = cost_points(of(cost("lla"), twice, shuffled=True), TRACK)
    assert point.latency.n == 3
    assert point.latency.value == pytest.approx(3.0, rel=0.02)


def test_cells_that_measured_different_things_stand_side_by_side():
    memory = [
        replace(row, cell=f"memory {row.cell}", metric="peak_memory")
        for row in cost("lla", at=LATER)
    ]
    [point] = cost_points(of(cost("lla"), memory), TRACK)
    assert point.latency.n == point.memory.n == 3


# Machines -------------------------------------------------------------------------------------


def test_machines_never_share_an_interval():
    mine = cost("lla", machine="Mine") + cost("softmax", machine="Mine")
    theirs = [
        row
        for name in ("lla", "softmax", "abc")
        for row in cost(name, (9.0, 9.1, 9.2, 9.3, 9.4), LATER, REFERENCE, "Theirs")
    ]
    results = of(mine, theirs, shuffled=True)
    assert results.machines == (Machine(TRACK, "Mine, 2 threads", ("abc",)),)
    for point in cost_points(results, TRACK):
        assert point.latency.n == 3
        assert point.latency.value < 2
    alone = of(theirs)
    assert alone.machines == (Machine(TRACK, "Theirs, 2 threads", ()),)
    assert {p.entry for p in cost_points(alone, TRACK)} == {"lla", "softmax", "abc"}


@pytest.mark.parametrize("other", [{"machine": "B"}, {"threads": 1}])
def test_of_several_own_machines_the_newest_counts(other):
    results = of(cost("lla"), cost("softmax"), cost("lla", (5.0, 5.0, 5.0), LATER, **other))
    assert len(results.machines) == 1
    assert results.machines[0].elsewhere == ("softmax",)
    [point] = cost_points(results, TRACK)
    assert point.latency.value == pytest.approx(5.0, rel=0.02)


def test_the_references_machine_is_another_one_of_the_same_name():
    theirs = cost("lla", (9.0, 9.1, 9.2, 9.3, 9.4), label=REFERENCE)
    [point] = cost_points(of(theirs, cost("softmax")), TRACK)
    assert point.entry == "softmax"


def test_an_end_that_names_no_machine_belongs_to_those_of_its_label():
    ended = {"status": "timeout", "value": None, "samples": [], "threads": None}
    lost = cost("s4d", at=LATER, machine=None, **ended)
    of_theirs = cost("abc", label=REFERENCE, machine=None, **ended)
    results = of(cost("lla"), cost("lla", label=REFERENCE, machine="Theirs"), lost, of_theirs)
    assert set(results.rows["entry"]) == {"lla", "s4d"}


def test_probes_are_a_board_of_their_own():
    """An index is over probes or over other tasks, never over both: each has one version."""
    old = quality("lla", ["passkey", "listops"], attention_hash="older")
    new = quality("lla", ["masked-lm"], at=LATER, attention_hash="newer")
    found = of(old, new).rows
    assert set(found["task"]) == {"passkey", "listops", "masked-lm"}
    assert set(found[found["task"] == "masked-lm"]["attention_hash"]) == {"newer"}
