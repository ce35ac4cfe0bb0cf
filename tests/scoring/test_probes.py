"""Probes beside other tasks, and the values that scores are read against."""

import pandas as pd
import pytest

from cab.errors import UsageError
from cab.registries import TASKS, named_tasks
from cab.request import Request
from cab.scoring.quality import quality_board
from cab.scoring.reference_lines import reference_lines
from cab.scoring.results import current
from cab.sheets.metrics import metric_sheets
from cab.track import Track
from runners.planner import make_plan
from tests.scoring.test_invariance import HEADLINE, table

TRACK = Track("causal-self", "tiny", "cpu")


def board(rows, tasks=(), probes=()):
    return quality_board(current(rows, {}), TRACK, HEADLINE, tasks, probes)


def test_a_probe_does_not_enter_the_index_beside_other_tasks():
    rows = table()
    found = board(rows, probes=["other"])
    without = board(rows[rows["task"] != "other"])
    assert found.tasks == ["loss-task", "score-task"]
    assert found.probes == ["other"]
    assert [s.index for s in found.standings] == [s.index for s in without.standings]


def test_probes_are_ranked_where_they_are_named_or_alone():
    rows = table()
    assert board(rows, tasks=["other"], probes=["other"]).tasks == ["other"]
    alone = board(rows[rows["task"] == "other"], probes=["other"])
    assert alone.tasks == ["other"]
    assert not alone.probes


def with_references():
    rows = table()
    one = rows[(rows["task"] == "loss-task") & (rows["metric"] == "loss")]
    oracle = one.assign(phase="reference", metric="loss@oracle", value=0.25 + one["seed"] / 10)
    zero = one.assign(phase="reference", metric="loss@zero", value=9.0)
    return current(pd.concat([rows, zero, oracle]), {})


def test_references_count_once_a_seed_and_rank_nobody():
    found = with_references()
    lines = reference_lines(found, TRACK, "loss-task")
    assert [(line.metric, line.name) for line in lines] == [("loss", "oracle"), ("loss", "zero")]
    assert lines[0].value.value == pytest.approx(0.35)
    assert lines[0].value.n == 3
    assert reference_lines(found, TRACK, "score-task") == []
    assert quality_board(found, TRACK, HEADLINE).standings == board(table()).standings


def test_a_table_of_a_metric_names_what_its_scores_are_read_against():
    loss, other = metric_sheets(with_references(), "loss", TRACK)
    assert any(note.startswith("oracle: 0.35") for note in loss.notes)
    assert any(note.startswith("zero: 9.0") for note in loss.notes)
    assert len(other.notes) == 1


def test_words_stand_for_many_tasks():
    infos = TASKS.infos()
    probes = [info.id for info in infos if info.probe]
    assert "test-time-regression" in probes
    assert named_tasks(["probes"]) == probes
    assert set(named_tasks(["all"])) == {info.id for info in infos}
    assert named_tasks(["masked-lm", "probes", "masked-lm"]) == ["masked-lm", *probes]


def plan(**fields):
    fields = {"attentions": ["softmax"], "patterns": ["CC"], "scale": "tiny", "seeds": 1,
              "measures": ["quality"], **fields}  # fmt: skip
    return {cell.task for cell in make_plan(Request(**fields), machine="m").cells}


def test_a_run_without_named_tasks_leaves_probes_out():
    probes = {info.id for info in TASKS.infos() if info.probe}
    assert not plan() & probes
    assert plan(tasks=["probes"])
    assert plan(tasks=["probes"]) <= probes
    assert plan(tasks=["all"]) >= plan() | {"test-time-regression"}


def test_tasks_that_nobody_named_are_left_out_where_they_lack_the_scale():
    assert not any("paper" in info.scales for info in TASKS.infos() if info.probe)
    with pytest.raises(UsageError, match="has a scale paper"):
        plan(tasks=["probes"], scale="paper")
    with pytest.raises(UsageError, match="has no scale paper"):
        plan(tasks=["test-time-regression"], scale="paper")
