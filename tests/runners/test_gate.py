"""A candidate from outside is examined once, in a process of its own, before it is measured."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runners.gate import examine_candidates, note_passed, require_contract
from runners.outcome import InvalidError

MEAN = """
if context is None or context.key_mask is None:
    return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])
keep = context.key_mask[:, None, :, None].to(v.dtype)
mean = (v * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True).clamp_min(1)
return mean.expand(*q.shape[:-1], v.shape[-1])
"""
LEAK = """
mean = q.mean((-2, -1), keepdim=True) + v.mean(-2, keepdim=True)
return mean.expand(*q.shape[:-1], v.shape[-1])""".strip()


@pytest.fixture(autouse=True)
def nothing_passed(monkeypatch):
    monkeypatch.setenv("CAB_CHECKED", "")


def test_what_passes_is_not_examined_again_by_workers(candidate, plan_of, monkeypatch):
    (cell,) = plan_of(candidate(MEAN))
    assert examine_candidates([cell, replace(cell, seed=1)]) == []
    assert len(os.environ["CAB_CHECKED"].split(",")) == 1
    monkeypatch.setattr("runners.gate.run_checks", lambda *_: pytest.fail("examined again"))
    require_contract(cell)


def test_a_worker_that_finds_other_code_examines_it(candidate, plan_of):
    (cell,) = plan_of(candidate(MEAN))
    note_passed(cell)
    candidate(LEAK)
    with pytest.raises(InvalidError, match="breaks the attention contract on causal-cross"):
        require_contract(cell)


def test_a_worker_without_word_examines_it(candidate, plan_of):
    (cell,) = plan_of(candidate(LEAK))
    with pytest.raises(InvalidError, match="no leak"):
        require_contract(cell)


def test_the_projects_own_entries_are_not_examined(plan_of, monkeypatch):
    monkeypatch.setattr("runners.gate._examine", lambda *_: pytest.fail("examined"))
    assert examine_candidates(plan_of("lla")) == []


def test_each_broken_rule_is_a_line(candidate, plan_of):
    (cell,) = plan_of(candidate(LEAK + " + torch.rand(())"))
    (rejection,) = examine_candidates([cell])
    assert {"no leak", "determinism"} <= set(rejection.violations)
    lines = rejection.lines()
    assert len(lines) == len(rejection.violations)
    assert all("candidate breaks the attention contract on causal-cross" in one for one in lines)


@pytest.mark.parametrize(
    ("body", "rule", "words"),
    [
        ("os._exit(0)", "end", "code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "end", "code -9"),
        ("raise SystemExit", "end", "code"),
    ],
)
def test_a_candidate_that_ends_its_process_is_rejected(candidate, plan_of, body, rule, words):
    (rejection,) = examine_candidates(plan_of(candidate(body)))
    assert words in rejection.violations[rule]


def test_a_result_that_the_candidate_has_written_does_not_count(candidate, plan_of):
    forge = "import sys\nif 'runners.probe' in sys.orig_argv: os.write(int(sys.argv[1]), b'{}\\n')"
    (rejection,) = examine_candidates(plan_of(candidate(MEAN, init=forge)))
    assert "wrote into the result" in rejection.violations["end"]


def test_a_candidate_that_hangs_is_rejected_and_leaves_nothing_running(
    candidate, plan_of, tmp_path
):
    note = tmp_path / "pid"
    body = f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    (cell,) = plan_of(candidate(body))
    patience = 2.0
    while not note.exists():  # a loaded machine takes its time to import torch
        patience *= 2
        (rejection,) = examine_candidates([cell], patience)
    assert f"after {patience:.0f} s" in rejection.violations["time"]
    assert not _alive(int(note.read_text()))


def test_the_examination_ends_with_its_parent(candidate, plan_of, tmp_path):
    note = tmp_path / "pid"
    body = f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    (cell,) = plan_of(candidate(body))
    code = (
        "import sys; from cab.cell import Cell; from runners.gate import examine_candidates; "
        "examine_candidates([Cell.from_json(sys.stdin.read())])"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    parent.stdin.write(cell.to_json())
    parent.stdin.close()
    _wait(lambda: note.exists() and note.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _wait(lambda: not _alive(int(note.read_text())))


def test_the_current_folder_is_not_on_the_path(candidate, plan_of, tmp_path, monkeypatch):
    (cell,) = plan_of(candidate(MEAN))
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "runners.py").write_text("raise SystemExit(9)")
    (shadow / "attentions.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(shadow)
    assert examine_candidates([cell]) == []


def _wait(reached):
    deadline = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
