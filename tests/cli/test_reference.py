"""Commands with the reference results beside the user's own, and without them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cab.cli.app import main
from cab.cli.console import console
from cab.schema import Row, Status
from cab.store import ResultStore
from tests.cli.stores import ABILITY, write_store


@pytest.fixture
def called(monkeypatch, capsys, tmp_path):
    """Run ``cab`` in this process, in an empty folder: output of a command that succeeds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 150)

    def run(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["cab", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        output, errors = capsys.readouterr()
        assert end.value.code == code, errors + output
        return output + errors

    return run


@pytest.fixture
def measured(reference):
    """Reference results as a project leaves them: its own label is not needed."""
    write_store(reference)
    return reference


def own_row(attention="lla", task="summarization", **fields):
    base = {
        "cell": f"own {attention} {task} {sorted(fields.items())}", "kind": "quality",
        "attention": attention, "pattern": "causal-self", "task": task, "scale": "small", "seed": 0,
        "run_id": "own", "grade": "faithful", "attention_hash": "h", "attention_options": "{}",
        "task_hash": "t", "data_hash": "d", "device": "cpu", "device_name": "My CPU", "threads": 2,
        "recorded_at": datetime(2026, 2, 1, tzinfo=UTC), "phase": "eval", "metric": "nll",
        "value": 1.0, "unit": "nat", "higher_is_better": False, "label": "verified",
        "git_commit": "abc", "environment": "{}",
    }  # fmt: skip
    return Row(**{**base, **fields})


def add(folder, *rows):
    store = ResultStore(folder)
    store.prepare()
    store.append(list(rows))


def board(text, title="causal-self (small, cpu)"):
    [found] = [t for t in json.loads(text) if t["title"] == title]
    return {row["entry"]: row for row in found["rows"]}


def test_an_empty_folder_shows_the_reference_and_where_it_is_from(called, measured):
    text = " ".join(called("leaderboard").split())
    assert "nothing measured in results/runs yet: these are the reference results" in text
    assert "reference: measured by the project on A CPU, 1 thread, commit abc, 2026-01-01" in text
    assert "cab run --attn" in text
    rows = board(called("leaderboard", "-f", "json"))
    assert set(rows) == set(ABILITY)
    assert {row["label"] for row in rows.values()} == {"reference"}
    assert list(measured.iterdir())
    assert not [path for path in measured.iterdir() if path.suffix != ".parquet"]


@pytest.mark.parametrize(
    "words",
    [("leaderboard",), ("leaderboard", "--metric", "latency"), ("leaderboard", "--metric", "nll"),
     ("leaderboard", "--metric", "bradley-terry"), ("leaderboard", "--metric", "compositional"),
     ("compare", "lla", "softmax"), ("show", "lla"), ("show", "summarization")],
)  # fmt: skip
def test_every_table_names_the_label_and_can_do_without(called, measured, words):
    add("results/runs", own_row("local"))
    assert "reference" in called(*words)
    code = 2 if words[0] == "compare" else 0
    assert "reference" not in called(*words, "--no-reference", code=code)


def test_own_rows_count_before_the_reference_and_forge_no_label(called, measured):
    for seed in range(3):
        for task in ("summarization", "made-up"):
            metric = "loss" if task == "made-up" else "nll"
            add("mine", own_row(task=task, seed=seed, value=0.5, metric=metric))
    rows = board(called("leaderboard", "-f", "json", "--out", "mine"))
    assert rows["lla"]["label"] == "self-reported"
    assert rows["lla"]["index"] > ABILITY["lla"] + 1
    assert {row["label"] for name, row in rows.items() if name != "lla"} == {"reference"}
    alone = json.loads(called("leaderboard", "-f", "json", "--out", "mine", "--no-reference"))
    assert {row["entry"] for table in alone for row in table["rows"]} == {"lla"}
    theirs = board(called("leaderboard", "-f", "json"))
    assert theirs["lla"]["label"] == "reference"


def test_a_mechanism_changed_on_one_task_is_said_to_lack_the_others(called, measured):
    add("results/runs", *[own_row(seed=seed, attention_hash="changed") for seed in range(3)])
    text = " ".join(called("leaderboard", "-p", "CS", "--scale", "small").split())
    assert (
        "lla: 2 tasks measured with other code of it left out: language-modeling, made-up" in text
    )
    assert "lla has no index: no full result on made-up" in text
    rows = board(called("leaderboard", "-f", "json", "-p", "CS", "--task", "summarization"))
    assert rows["lla"]["rank"] == 1
    assert rows["lla"]["label"] == "self-reported"
    assert "lla: 2 tasks measured with other code" in called("compare", "lla", "softmax")


def test_costs_are_of_one_machine_and_name_it(called, measured):
    words = ("leaderboard", "-p", "CS", "--scale", "small", "--metric", "latency", "-f", "json")
    [sheet] = json.loads(called(*words))
    assert "measured on A CPU, 1 thread" in sheet["notes"]
    assert {row["label"] for row in sheet["rows"]} == {"reference"}
    own = {"kind": "efficiency", "phase": "forward", "length_q": 512, "length_k": 512, "task": "",
           "metric": "latency", "samples": [1.0, 1.1]}  # fmt: skip
    for attention in ("lla", "softmax"):
        add("results/runs", *[own_row(attention, seed=seed, **own) for seed in range(3)])
    [sheet] = json.loads(called(*words))
    assert "measured on My CPU, 2 threads" in sheet["notes"]
    assert "left out, measured elsewhere: local, s4d" in sheet["notes"]
    assert {row["entry"]: row["label"] for row in sheet["rows"]} == {
        "lla": "self-reported", "softmax": "self-reported"
    }  # fmt: skip


def test_report_has_labels_and_a_page_without_the_reference(called, measured, tmp_path):
    called("report", "--to", "whole.html")
    text = (tmp_path / "whole.html").read_text()
    assert "the reference results of cab" in text
    assert "reference: measured by the project on A CPU" in text
    assert "<th>label</th>" in text
    assert "no results in" in called("report", "--no-reference", code=2)


def test_show_lists_what_was_measured_with_softmax_beside(called, measured):
    text = called("show", "s4d")
    assert "s4d on causal-self (small, cpu)" in text
    line = next(line for line in text.splitlines() if line.startswith("s4d ") and "made-up" in line)
    assert line.split()[-2:] == ["reference", "2026-01-01"]
    text = called("show", "masked-lm")
    lines = [line.split()[0] for line in text.splitlines() if "reference  2026" in line]
    assert lines[0] == "lla"
    assert lines[-1] == "none"
    assert "not measured in" in called("show", "s4d", "--no-reference")


@pytest.fixture
def plan():
    """Cells of a run with controls."""
    from cab.request import Request
    from runners.planner import make_plan

    def of(*attentions):
        request = Request(
            attentions=attentions, patterns=["causal-cross"], tasks=["test-time-regression"],
            scale="tiny", measures=["quality"], seeds=2,
        )  # fmt: skip
        return make_plan(request, "").cells

    return of


WORDS = ("run", "--attn", "lla", "-p", "CC", "--task", "test-time-regression", "--scale", "tiny",
         "--measure", "quality", "--seeds", "2", "--device", "cpu")  # fmt: skip


def numbers(cells):
    from runners.rows import identity

    return [
        replace(
            identity(cell), recorded_at=datetime.now(UTC), phase="eval", metric="mse", run_id="x",
            value=0.5 + cell.seed / 100 + (cell.attention == "none"), higher_is_better=False,
        )
        for cell in cells
    ]  # fmt: skip


def test_run_takes_controls_from_the_reference_and_measures_the_candidate(called, plan, reference):
    cells = plan("lla")
    add(reference, *numbers(cells))
    text = called(*WORDS, "--dry-run")
    assert "6 cells, 0 in results/runs already, 2 to run" in text
    assert "softmax, none: 4 cells from the reference results" in text
    states = [(line.split()[0], line.split()[2]) for line in text.splitlines() if "quality" in line]
    assert sorted(states) == [("reference", "none"), ("reference", "none"),
                              ("reference", "softmax"), ("reference", "softmax"),
                              ("run", "lla"), ("run", "lla")]  # fmt: skip
    assert "6 to run" in called(*WORDS, "--dry-run", "--no-reference")
    assert "4 to run" in called(*WORDS, "--attn", "softmax", "--dry-run")


@pytest.mark.parametrize("end", [s for s in Status if s is not Status.OK])
def test_an_end_is_tried_again_where_it_is_asked_for(called, plan, reference, end):
    cells = plan("lla")
    rows = numbers(cells)
    rows[0] = replace(rows[0], status=end.value, value=None, metric="", phase=None)
    add("results/runs", *rows)
    asked = "1 to run"
    assert ("0 to run", asked)[end is Status.ERROR] in called(*WORDS, "--dry-run")
    others = [s.value for s in Status if s not in (Status.OK, Status.ERROR, end)]
    text = called(*WORDS, "--dry-run", "--retry", ",".join(others))
    assert ("0 to run", asked)[end is Status.ERROR] in text
    assert asked in called(*WORDS, "--dry-run", "--retry", f"{end.value.upper()}, {others[0]}")


def test_the_tables_of_a_run_are_of_its_cells_and_name_labels(called, plan, reference):
    cells = plan("lla")
    add(reference, *numbers([c for c in plan("lla", "linear-elu") if c.attention != "lla"]))
    more = [replace(row, task="scanpath", cell=f"{row.cell}x") for row in numbers(cells)]
    add(reference, *more)
    add("results/runs", *numbers([c for c in cells if c.attention == "lla"]))
    text = called(*WORDS)
    assert "2 in results/runs already, 0 to run" in text
    assert "(reference)" in text
    assert "scanpath" not in text
    assert "linear-elu" not in text
    for name, grade, label in (("lla", "extension", "self-reported"),
                               ("softmax", "faithful", "reference")):  # fmt: skip
        [line] = [x.split() for x in text.splitlines() if {name, grade} <= set(x.split())]
        assert label in line
    assert "reference: measured by the project" in text


@pytest.mark.parametrize(("words", "begins"), [((), "on"), (("--no-reference",), "off")])
def test_the_dashboard_begins_as_it_is_told(called, monkeypatch, words, begins):
    started = {}

    def run(command, env, check):
        started.update(env)
        return subprocess.CompletedProcess(command, 0)

    def execve(path, command, env):
        # What takes the place of a process does not come back to it.
        raise SystemExit(run(command, env, check=False).returncode)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "execve", execve)
    called("dashboard", "--headless", *words)
    assert started["CAB_REFERENCE"] == begins
