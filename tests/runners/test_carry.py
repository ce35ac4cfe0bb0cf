"""Stored cells of older code are carried over where a replay is the same, and never otherwise."""

import json
from dataclasses import replace

import pytest

from cab.artifact import Artifact
from cab.cli.results import audit_command, carry_command
from cab.errors import CabError, UsageError
from cab.request import Request
from cab.schema import Row
from cab.store import ResultStore
from runners.audit import drawn_cells
from runners.carry import plan_carrying
from runners.executors.local import LocalExecutor
from runners.planner import make_plan
from runners.session import run_cells
from runners.stored import quality_cells


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A cell, and the rows of its run."""
    root = tmp_path_factory.mktemp("measured")
    request = Request(
        attentions=["linear-elu"], patterns=["NS"], tasks=["forecasting"], scale="tiny", seeds=1,
        measures=("quality",),
    )  # fmt: skip
    (cell,) = [c for c in make_plan(request, "").cells if c.attention == "linear-elu"]
    store = ResultStore(root)
    store.prepare()
    result = run_cells([cell], store, LocalExecutor(workers=1), lambda event: None)
    assert result.ended[cell.key].status.value == "ok"
    return cell, list(quality_cells(store)[0].rows)


def stale(rows, **witness):
    """The rows as an older version of the code would have stored them."""

    def older(row):
        fields = {"cell": "0123456789abcdef" * 2, "attention_hash": "older", "task_hash": "older"}
        if row.witness:
            recorded = json.loads(row.witness) | {"attention_code": "older"} | witness
            fields["witness"] = json.dumps(recorded)
        return replace(row, **fields)

    return [older(row) for row in rows]


@pytest.fixture
def store(tmp_path):
    found = ResultStore(tmp_path / "runs")
    found.prepare()
    return found


def carry(store):
    return carry_command(store.root, "cpu", 1, 300.0, False)


def test_rows_are_carried_over_without_training(store, measured):
    cell, rows = measured
    old = stale(rows)
    store.append(old)
    store.attach(old[0].cell, [Artifact("sample", "txt", "a sample", b"text")])
    assert carry(store) == 0
    (carried,) = [c for c in quality_cells(store) if c.key == cell.key]
    assert {(r.phase, r.metric): r.value for r in carried.rows} == {
        (r.phase, r.metric): r.value for r in rows
    }
    first = carried.first
    assert (first.attention_hash, first.task_hash) == (cell.attention_hash, cell.task_hash)
    assert old[0].cell in first.source
    assert str(rows[0].git_commit) in first.source
    assert carried.witness
    assert [a.content for a in store.artifacts(cell.key)] == [b"text"]
    # It is final: nothing is left to run, to carry or to doubt.
    assert cell.key in store.finished()
    assert plan_carrying(store, "cpu").replays == []
    assert audit_command(store.root, "cpu", 1, 1, 0, 300.0) == 0


@pytest.mark.parametrize(
    ("witness", "words"),
    [
        ({"losses": [1.0, 2.0, 3.0, 4.0, 5.0]}, "losses of the first steps"),
        ({"recipe": "other"}, "recipe or its learning rates"),
        ({"stateful": True}, "keeps a state"),
    ],
)
def test_what_differs_must_be_measured(store, measured, capsys, witness, words):
    cell, rows = measured
    store.append(stale(rows, **witness))
    assert carry(store) == 1
    assert words in " ".join(capsys.readouterr().out.split())
    assert cell.key not in store.finished()


def test_other_data_are_never_carried_over(store, measured, capsys):
    cell, rows = measured
    store.append([replace(row, data_hash="other") for row in stale(rows)])
    assert carry(store) == 1
    assert "the data changed" in capsys.readouterr().out
    assert cell.key not in store.finished()


def test_what_has_no_witness_or_no_entry_is_listed(store, measured, capsys):
    _, rows = measured
    store.append([replace(row, witness=None) for row in stale(rows)])
    gone = [replace(row, cell="f" * 32, attention="gone-attention") for row in stale(rows)]
    store.append(gone)
    assert carry(store) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "stored without a witness" in said
    assert "unknown attention 'gone-attention'" in said


def test_an_audit_finds_a_score_that_was_changed(store, measured, capsys):
    _, rows = measured
    changed = [replace(r, value=r.value * 1.5) if r.metric == "mse" else r for r in rows]
    store.append(changed)
    assert audit_command(store.root, "cpu", 1, 5, 0, 300.0) == 1
    assert "mse was" in capsys.readouterr().out


def test_an_audit_needs_cells_of_todays_code(store, measured):
    _, rows = measured
    store.append(stale(rows))
    with pytest.raises(CabError, match="no quality cell of today's code"):
        drawn_cells(store, "cpu", 3, 0)


def test_bad_requests_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="not a results folder"):
        carry_command(tmp_path / "none", "cpu", 1, 300.0, False)
    with pytest.raises(UsageError, match="must be positive"):
        carry_command(tmp_path, "cpu", 0, 300.0, False)
    with pytest.raises(UsageError, match="at least 1"):
        audit_command(tmp_path, "cpu", 1, 0, 0, 300.0)


def test_rows_of_older_schemas_have_no_witness():
    assert Row(cell="a", kind="quality", attention="a", pattern="causal-self").witness is None
