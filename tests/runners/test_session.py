"""A run: what it stores is of the cell that was started, whatever the worker says, and what comes
from the reference results.
"""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch

from cab import result_sources
from cab.cell import Cell
from cab.result_sources import ResultSources
from cab.schema import TRIED_AGAIN, Row, Status
from cab.store import ResultStore
from runners.again import TRIES, Again, disturbed_cells, measure_again
from runners.efficiency.runner import _judged
from runners.efficiency.settings import EfficiencySettings
from runners.executors.events import Ended
from runners.rows import identity
from runners.session import missing_cells, reference_controls, run_cells
from runners.stored import rows_of_cells


def cell(attention, **fields):
    base = {
        "kind": "quality", "target": f"x:{attention}", "grade": "faithful", "attention_hash": "h",
        "softmax_hash": "s", "runner_hash": "r", "pattern": "causal-self", "task": "t",
        "task_hash": "t", "data_hash": "d", "scale": "tiny", "seed": 0, "device": "cpu",
    } | fields  # fmt: skip
    return Cell(attention=attention, **base)


def number(of, **fields):
    made = {"recorded_at": datetime.now(UTC), "phase": "eval", "metric": "m", "value": 1.0}
    return replace(identity(of), **{**made, **fields})


class Lying:
    """An executor whose workers record what they like."""

    def __init__(self, lies):
        self.lies = lies

    def run(self, cells, handle):
        for each in cells:
            rows = [number(each, **self.lies)]
            handle(Ended(cell=each, status=Status.OK, message="", rows=rows, seconds=1.0))

    def width(self, cells):
        return 1


LIES = {
    "label": "verified", "attention": "softmax", "task": "other", "cell": "f" * 32, "seed": 7,
    "grade": "adapted", "attention_hash": "other", "task_hash": "other", "data_hash": "other",
    "pattern": "causal-cross", "scale": "paper", "device": "cuda", "kind": "efficiency",
    "attention_options": '{"a": 1}', "suite_version": "9", "run_id": "other",
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_worker_does_not_say_whose_number_it_is(tmp_path, name):
    store, mine = ResultStore(tmp_path), cell("lla")
    store.prepare()
    run_cells([mine], store, Lying({name: LIES[name]}), lambda event: None)
    [path] = store.files()
    [stored] = store.read_file(path).to_pylist()
    expected = replace(identity(mine), label="self-reported").as_dict()
    assert stored[name] == expected[name] or name == "run_id"
    assert stored[name] != LIES[name]
    assert stored["value"] == 1.0


@pytest.fixture
def sources(tmp_path, monkeypatch):
    own, reference = tmp_path / "own", tmp_path / "reference"
    for folder in (own, reference):
        folder.mkdir()
    monkeypatch.setattr(result_sources, "REFERENCE", reference)
    return ResultSources.at(own)


LINEUP = [cell("lla"), cell("softmax"), cell("none"), cell("softmax", kind="efficiency", task="")]


def test_controls_come_from_the_reference_and_candidates_never(sources):
    ResultStore(sources.reference.root).append([number(each) for each in LINEUP])
    taken = reference_controls(LINEUP, ["lla"], sources)
    assert [c.attention for c in taken] == ["softmax", "none"]
    assert all(c.kind == "quality" for c in taken)
    # A control that was asked for by name is a candidate.
    assert [c.attention for c in reference_controls(LINEUP, ["softmax"], sources)] == [
        "lla", "none"
    ]  # fmt: skip
    assert missing_cells(LINEUP, sources.own) == LINEUP


def test_only_the_very_cell_is_taken(sources):
    ResultStore(sources.reference.root).append([number(cell("softmax"))])
    for change in ({"seed": 1}, {"attention_hash": "new"}, {"task_hash": "new"},
                   {"data_hash": "new"}, {"runner_hash": "new"}, {"scale": "small"}):  # fmt: skip
        assert not reference_controls([cell("softmax", **change)], ["lla"], sources)


def test_what_the_user_measured_is_not_taken(sources):
    ResultStore(sources.reference.root).append([number(cell("softmax"))])
    sources.own.append([number(cell("softmax"))])
    assert not reference_controls(LINEUP, ["lla"], sources)
    assert cell("softmax") not in missing_cells(LINEUP, sources.own)


def test_a_row_has_no_label_before_the_parent_gives_it():
    assert identity(cell("lla")).label is None
    assert Row(cell="c", kind="quality", attention="a", pattern="causal-self").label is None


SIZES = EfficiencySettings((256, 512), 1, 1, 4, torch.float32, 0.1, 3).to_mapping()
POINTS = [(phase, length) for length in (256, 512) for phase in ("forward", "forward_backward")]


def costs_cell(**fields):
    return cell("lla", kind="efficiency", task="", measures=("latency",), settings=SIZES, **fields)


class Machine:
    """An executor on a machine that goes from state to state: a word for each point of a run, "ok",
    "noisy" or an end; latencies count the runs.
    """

    def __init__(self, *states, end=Status.OK):
        self.states, self.asked, self.end = list(states), [], end

    def run(self, cells, handle):
        for each in cells:
            state = self.states.pop(0)
            run = len(self.asked)
            self.asked.append(each.only)
            rows = [number(each, phase=None, metric="gemm_rate", value=1.0)]
            for point in each.only or POINTS:
                rows += self.point(each, point, state.get(point, "ok"), float(run + 1))
            handle(Ended(each, self.end, "", [row for row in rows if row], 1.0))

    def point(self, each, point, word, value):
        phase, length = point
        where = {"phase": phase, "length_q": length, "metric": "latency", "unit": "s"}
        if word == "lost":
            return []
        if word not in ("ok", "noisy"):
            return [number(each, **where, status=word, value=None)]
        facts = {"noisy": word == "noisy", "other_cores": 1.0 / value if word == "noisy" else 0.0}
        return [number(each, **where, value=value, samples=[value] * 4,
                       environment=json.dumps(facts))]  # fmt: skip

    def width(self, cells):
        return 1


def latencies(store):
    """Value or end by point, of the run that counts; each is there once."""
    (rows,) = rows_of_cells(store, [costs_cell().key]).values()
    found = [((r.phase, r.length_q), r.value or r.status) for r in rows if r.metric == "latency"]
    assert len(dict(found)) == len(found)
    return dict(found)


def ran(store, machine, again=TRIED_AGAIN):
    run_cells([costs_cell()], store, machine, lambda event: None, again)
    return machine.asked


@pytest.fixture
def store(tmp_path):
    made = ResultStore(tmp_path / "store")
    made.prepare()
    return made


ENDS = [status.value for status in Status if status is not Status.OK]


@pytest.mark.parametrize("word", [*ENDS, "noisy"])
@pytest.mark.parametrize("again", [[], *([end] for end in ENDS), ["disturbed"]])
def test_of_a_cell_in_part_the_rest_is_measured(store, word, again):
    bad = POINTS[2]
    assert ran(store, Machine({bad: word})) == [()]
    wanted = word in again or (word == "noisy" and "disturbed" in again)
    assert ran(store, Machine({}), again) == ([(bad,)] if wanted else [])
    expected = dict.fromkeys(POINTS, 1.0)
    if not wanted:
        expected[bad] = 1.0 if word == "noisy" else word
    assert latencies(store) == expected


def test_points_that_a_dead_worker_never_told_are_measured(store):
    lost = POINTS[1:]
    ran(store, Machine(dict.fromkeys(lost, "lost"), end=Status.ERROR))
    assert ran(store, Machine({})) == [tuple(lost)]
    assert set(latencies(store)) == set(POINTS)
    assert missing_cells([costs_cell()], store) == []


@pytest.mark.parametrize("word", [*(end for end in ENDS if end != "invalid"), "lost"])
@pytest.mark.parametrize("bad", [POINTS[:1], POINTS[1:], POINTS], ids=["one", "most", "all"])
def test_a_second_try_that_comes_to_nothing_loses_nothing(store, word, bad):
    ran(store, Machine(dict.fromkeys(bad, "noisy")))
    ran(store, Machine(dict.fromkeys(bad, word)), ["disturbed"])
    assert latencies(store) == dict.fromkeys(POINTS, 1.0)


def test_of_two_disturbed_measurements_the_less_disturbed_is_kept(store):
    bad = POINTS[0]
    ran(store, Machine({bad: "noisy"}))
    better = Machine({}, {bad: "noisy"})
    better.asked = [None]  # its second run: half as many cores are busy
    better.states.pop(0)
    ran(store, better, ["disturbed"])
    assert latencies(store)[bad] == 2.0
    ran(store, Machine({bad: "noisy"}), ["disturbed"])
    assert latencies(store)[bad] == 2.0


def test_what_was_kept_says_of_which_run_it_is(store):
    ran(store, Machine({POINTS[0]: "noisy"}))
    (first,) = rows_of_cells(store, [costs_cell().key]).values()
    ran(store, Machine({}), ["disturbed"])
    (second,) = rows_of_cells(store, [costs_cell().key]).values()
    assert len({row.run_id for row in second}) == 1
    carried = {(row.phase, row.length_q): row.source for row in second if row.phase}
    assert carried == {p: None if p == POINTS[0] else f"run {first[0].run_id}" for p in POINTS}


def test_what_makes_a_cell_invalid_is_all_that_counts_of_it(store):
    ran(store, Machine({POINTS[0]: "noisy"}))
    ran(store, Machine({}, end=Status.INVALID), ["disturbed"])
    assert store.statuses() == {costs_cell().key: {"invalid"}}


def repeated(store, machine, seconds=60.0, quiet=True):
    cells = disturbed_cells([costs_cell()], store)
    return measure_again(cells, store, machine, lambda event: None, seconds, lambda most: quiet)


def test_disturbed_points_are_measured_again_until_they_are_not(store):
    bad = tuple(POINTS[1:3])
    ran(store, Machine(dict.fromkeys(bad, "noisy")))
    machine = Machine({bad[0]: "noisy"}, {})
    assert repeated(store, machine) == Again(2, 0)
    assert machine.asked == [bad, bad[:1]]
    assert latencies(store) == dict.fromkeys(POINTS, 1.0) | {bad[0]: 2.0}
    assert disturbed_cells([costs_cell()], store) == []


def test_tries_time_and_a_busy_machine_bound_it(store):
    noisy = {POINTS[0]: "noisy"}
    ran(store, Machine(noisy))
    for seconds, quiet, tries in ((60.0, True, TRIES), (0.0, True, 0), (60.0, False, 0)):
        machine = Machine(*[noisy] * (TRIES + 1))
        assert repeated(store, machine, seconds, quiet) == Again(1, 1)
        assert len(machine.asked) == tries


def test_what_is_measured_in_a_run_is_no_part_of_a_key():
    part = replace(costs_cell(), only=(POINTS[0],))
    assert part.key == costs_cell().key
    assert Cell.from_json(part.to_json()) == replace(part, settings=Cell.from_json(
        costs_cell().to_json()).settings)  # fmt: skip


@pytest.mark.parametrize(("busy", "disturbed"), [(None, 0), (0.1, 0), (1.0, 1), (math.inf, 1)])
def test_a_point_for_which_others_left_no_time_is_disturbed(store, busy, disturbed):
    (phase, length), mine = POINTS[0], costs_cell()
    ended = number(mine, phase=phase, length_q=length, metric="latency", status="timeout")
    store.append([_judged(ended, busy)])
    assert len(disturbed_cells([mine], store)) == disturbed
