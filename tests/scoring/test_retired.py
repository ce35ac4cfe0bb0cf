"""Pairs of task and pattern that do not tell attention from none: nobody has them who does not name
the task, and everybody is told why.
"""

import re

import pytest

from cab.chosen_task import choose_tasks
from cab.info import Scale
from cab.patterns import Pattern
from cab.registries import TASKS
from cab.request import Request
from cab.schema import table_of
from cab.scoring.boards import board as board_of
from cab.scoring.quality import quality_board
from cab.scoring.results import current
from cab.sheets.comparison import comparison_sheets
from cab.sheets.notes import board_notes
from cab.track import Track
from runners.planner import make_plan
from tests.scoring.test_invariance import HEADLINE, table
from tests.scoring.test_versions import quality

TRACK = Track("causal-self", "tiny", "cpu")
PAIRS = [(info.id, pattern) for info in TASKS.infos() for pattern in info.retired]


def board(rows, tasks=(), probes=(), retired=()):
    return quality_board(current(rows, {}), TRACK, HEADLINE, tasks, probes, retired)


def served(words):
    """What `cab run --task` with these words measures, or without any."""
    tasks = choose_tasks(words, Scale.TINY)
    return {(task.id, pattern) for task in tasks for pattern in Pattern if task.serves(pattern)}


@pytest.mark.parametrize(("task", "pattern"), PAIRS)
def test_a_retired_pair_exists_and_its_record_has_the_gap(task, pattern):
    info = TASKS.resolve(task).info
    assert pattern in info.backbones
    why = info.retired[pattern]
    number = r"\d[\d.]* ± \d[\d.]*"
    found = re.search(rf"of softmax {number}, of none {number}, a gap of (-?\d+\.\d) spreads", why)
    assert found, why
    assert float(found[1]) < 4


@pytest.mark.parametrize(("task", "pattern"), PAIRS)
def test_it_is_run_where_the_task_is_named(task, pattern):
    assert (task, pattern) not in served([])
    assert (task, pattern) not in served(["all"])
    assert (task, pattern) in served([task])


def test_all_other_pairs_are_run_by_default():
    infos = [info for info in TASKS.infos() if not info.probe]
    every = {(info.id, pattern) for info in infos for pattern in info.backbones}
    assert served([]) == every - set(PAIRS)


def test_its_cells_are_planned_as_any_other():
    request = Request(attentions=["softmax"], patterns=["NS"], tasks=["forecasting-informer"],
                      scale="tiny", seeds=1, measures=["quality"])  # fmt: skip
    assert {cell.task for cell in make_plan(request, "here").cells} == {"forecasting-informer"}


def test_it_does_not_enter_a_board_beside_other_tasks_and_that_is_said():
    rows = table()
    found = board(rows, retired=["other"])
    without = board(rows[rows["task"] != "other"])
    assert found.tasks == ["loss-task", "score-task"]
    assert found.retired == ["other"]
    assert found.aside == {"other"}
    assert [s.index for s in found.standings] == [s.index for s in without.standings]
    (note,) = [note for note in board_notes(found) if "cab show other" in note]
    assert note.startswith("other is left out: ")


def test_it_is_ranked_where_it_is_named_or_alone():
    rows = table()
    assert board(rows, ["other"], retired=["other"]).tasks == ["other"]
    alone = board(rows[rows["task"] == "other"], retired=["other"])
    assert alone.tasks == ["other"]
    assert not alone.retired


def test_beside_probes_alone_it_does_not_count_either():
    rows = table()
    found = board(rows[rows["task"] != "loss-task"], probes=["score-task"], retired=["other"])
    assert found.tasks == ["score-task"]
    assert found.retired == ["other"]
    assert not found.probes


def test_the_registered_ones_are_left_out_of_boards_and_comparisons():
    track = Track("noncausal-self", "tiny", "cpu")
    rows = []
    for attention, value in (("softmax", 1.0), ("lla", 0.9)):
        for task, metric in (("forecasting", "mse"), ("forecasting-informer", "mse")):
            rows += quality(attention, [task], value, metric=metric, pattern="noncausal-self")
    results = current(table_of(rows).to_pandas(), {}, installed=lambda name: ())
    found = board_of(results, track)
    assert found.tasks == ["forecasting"]
    assert found.retired == ["forecasting-informer"]
    assert board_of(results, track, ["forecasting-informer"]).tasks == ["forecasting-informer"]
    notes = comparison_sheets(results, "lla", "softmax", track)[0].notes
    assert "forecasting-informer is left out: it does not measure attention here" in notes
