"""Workers are forked from a warm server; whatever happens, a cell ends and nothing stays."""

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cab.own_code import ROOT
from cab.schema import Status
from runners.executors.events import Ended, Progressed, Started
from runners.executors.local import LocalExecutor
from runners.executors.processes import Server

FAIR = "return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])"


def ends(cells, on_event=lambda event: None, workers=1):
    found = []

    def handle(event):
        on_event(event)
        if isinstance(event, Ended):
            found.append(event)

    LocalExecutor(workers=workers, timeout=120).run(cells, handle)
    return found


def children(pid):
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in listed for word in path.read_text().split()]


def test_cells_of_one_run_share_a_server(plan_of):
    (cell,) = plan_of("none")
    cells = [replace(cell, seed=seed) for seed in range(3)]
    parents, others = set(), set(children(os.getpid()))

    def note(event):
        if isinstance(event, Progressed | Started):
            parents.update(children(os.getpid()))

    assert [end.status for end in ends(cells, note)] == [Status.OK] * 3
    assert len(parents - others) == 1
    assert not set(children(os.getpid())) - others


def test_when_the_server_dies_the_other_cells_are_measured(plan_of):
    (cell,) = plan_of("none")
    cells = [replace(cell, seed=seed) for seed in range(3)]
    killed, others = [], set(children(os.getpid()))

    def kill_first(event):
        if isinstance(event, Started) and not killed:
            killed.extend(set(children(os.getpid())) - others)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    found = {end.cell.seed: end for end in ends(cells, kill_first)}
    assert len(found) == 3
    assert [found[seed].status for seed in (1, 2)] == [Status.OK] * 2


def test_a_closed_server_leaves_nothing_behind():
    server = Server()
    log = open(os.devnull, "wb")  # noqa: SIM115 - closed below
    jobs, given = os.pipe()
    events, theirs = os.pipe()
    worker = server.fork(theirs, jobs, log)
    assert worker is not None
    pid = worker._pid
    assert Path(f"/proc/{pid}").exists()
    server.close()
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    for descriptor in (jobs, given, events, theirs):
        os.close(descriptor)
    log.close()


def test_a_worker_measures_the_code_that_was_planned_or_nothing(plan_of, candidate):
    target = candidate(FAIR)
    (cell,) = plan_of(target)
    path = Path(target.rpartition(":")[0])
    path.write_text(path.read_text().replace("v.mean", "2 * v.mean"))
    (end,) = ends([cell])
    assert end.status is Status.ERROR
    assert "is not what was planned" in end.message
    assert "attention candidate" in end.message
    assert not end.rows


@pytest.mark.parametrize("field", ["task_hash", "runner_hash", "softmax_hash"])
def test_other_code_of_task_runner_or_softmax_is_refused(plan_of, field):
    (cell,) = plan_of("none")
    (end,) = ends([replace(cell, **{field: "other"})])
    assert end.status is Status.ERROR
    assert "is not what was planned" in end.message


def test_folders_of_the_users_own_do_not_shadow_the_suite(plan_of, tmp_path, monkeypatch):
    for name in ("tasks", "attentions", "runners"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not the suite')\n")
    (tmp_path / "results.py").write_text("raise ImportError('not the suite')\n")
    (cell,) = plan_of("none")
    monkeypatch.chdir(tmp_path)
    (end,) = ends([cell])
    assert end.status is Status.OK, end.message


def test_a_shadowed_package_is_named(tmp_path):
    import sys

    (tmp_path / "tasks.py").write_text("")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", "from cab.cli.app import main; main()", "list"],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{tmp_path / 'tasks.py'} shadows the package 'tasks'" in done.stderr
    assert "Traceback" not in done.stderr
