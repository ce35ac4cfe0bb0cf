"""``cab run`` end to end: the table, reuse, resumption after a kill, Ctrl-C."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cab.store import ResultStore
from tests.cli.conftest import CAB

WORDS = (
    "run", "--attn", "lla", "--pattern", "causal-cross", "--task", "test-time-regression",
    "--scale", "tiny", "--measure", "quality", "--seeds", "2",
)  # fmt: skip
CELLS = 6


def start(folder):
    return subprocess.Popen(
        [*CAB, *WORDS, "--workers", "1", "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


def wait_for_cells(folder, count, process):
    deadline = time.monotonic() + 240
    while len(list(folder.glob("*.parquet"))) < count:
        assert time.monotonic() < deadline, "no cell was finished"
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def workers_of(pid):
    """Process ids of the run's workers and of the server that they are forked from; between two
    cells there is none for a moment.
    """
    deadline = time.monotonic() + 120
    while True:
        parents = _parents()
        servers = [child for child, parent in parents.items() if parent == pid]
        workers = [child for child, parent in parents.items() if parent in servers]
        if workers:
            return servers + workers
        assert time.monotonic() < deadline, "the run has no worker"
        time.sleep(0.01)


def _parents():
    """The parent of each process that runs code of ours."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"runners." in words:
            found[int(folder.name)] = parent
    return found


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_run_prints_the_table_and_a_second_run_measures_nothing(cab_in, tmp_path):
    first = cab_in(*WORDS, "--out", "store")
    assert first.returncode == 0, first.stdout + first.stderr
    for word in ("test-time-regression", "mse", "lla", "softmax", "none", "±", "Parquet: store"):
        assert word in first.stdout
    files = _files(tmp_path / "store")
    assert all(name.endswith(".parquet") for name in files)
    assert len(files) == CELLS  # and nothing else, for whoever reads the folder
    assert any(name.startswith("artifacts/") for name in _files(tmp_path / "store.files"))
    second = cab_in(*WORDS, "--out", "store")
    assert f"{CELLS} in store already, 0 to run" in second.stdout
    assert _files(tmp_path / "store") == files
    assert (
        first.stdout.split("causal-cross (tiny")[1] == second.stdout.split("causal-cross (tiny")[1]
    )
    more = cab_in(*WORDS, "--out", "store", "--attn", "linear-elu", "--dry-run")
    assert "8 cells, 6 in store already, 2 to run" in more.stdout


def test_after_kill_9_the_store_is_clean_and_the_run_resumes(cab_in, tmp_path):
    folder = tmp_path / "store"
    process = start(folder)
    wait_for_cells(folder, 2, process)
    children = workers_of(process.pid)
    process.kill()
    process.communicate()
    kept = ResultStore(folder).finished()
    assert 2 <= len(kept) < CELLS
    deadline = time.monotonic() + 120
    while any(alive(child) for child in children):
        assert time.monotonic() < deadline, "a worker outlived the run"
        time.sleep(0.1)
    resumed = cab_in(*WORDS, "--out", folder)
    assert resumed.returncode == 0
    assert f"{len(kept)} in {folder} already, {CELLS - len(kept)} to run" in (
        " ".join(resumed.stdout.split())
    )
    assert len(ResultStore(folder).finished()) == CELLS


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(tmp_path, ends):
    folder = tmp_path / "store"
    process = start(folder)
    wait_for_cells(folder, 1, process)
    children = workers_of(process.pid)
    process.send_signal(ends)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    assert not any(alive(child) for child in children)
    assert len(ResultStore(folder).finished()) >= 1


def test_a_users_file_is_measured(cab_in, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from attentions.softmax import SoftmaxAttention\n\n\n"
        "class HalfTemperature(SoftmaxAttention):\n"
        "    '''Softmax at half the temperature.'''\n\n"
        "    info = None\n\n"
        "    def forward(self, q, k, v, context=None):\n"
        "        return super().forward(2 * q, k, v, context)\n\n"
        "    def reference(self, q, k, v, context=None):\n"
        "        return super().reference(2 * q, k, v, context)\n"
    )
    words = [word if word != "lla" else "mine.py:HalfTemperature" for word in WORDS]
    done = cab_in(*words, "--out", "store", "--seeds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "half-temperature" in done.stdout


def test_a_failing_candidate_gives_exit_code_1_and_its_reason(cab_in, tmp_path):
    (tmp_path / "bad.py").write_text(
        "import torch\n"
        "from attentions.softmax import SoftmaxAttention\n\n\n"
        "class Bad(SoftmaxAttention):\n"
        "    info = None\n\n"
        "    def forward(self, q, k, v, context=None):\n"
        # As a quality cell is and the contract's checks are not.
        "        if torch.are_deterministic_algorithms_enabled() and k.shape[-2] > 40:\n"
        "            raise ValueError('not that long')\n"
        "        return super().forward(q, k, v, context)\n"
    )
    words = [word if word != "lla" else "bad.py:Bad" for word in WORDS]
    done = cab_in(*words, "--out", "store", "--seeds", "1")
    assert done.returncode == 1
    assert "ValueError: not that long" in done.stdout
    again = cab_in(*words, "--out", "store", "--seeds", "1", "--dry-run")
    assert "1 to run" in again.stdout


LEAK = (
    "from attentions.softmax import SoftmaxAttention\n\n\n"
    "class Leak(SoftmaxAttention):\n"
    "    info = None\n\n"
    "    def forward(self, q, k, v, context=None):\n"
    "        return super().forward(q, k, v, context) + q.mean((-2, -1), keepdim=True)\n"
)


@pytest.mark.parametrize("command", ["run", "bench"])
def test_a_rejected_candidate_trains_nothing_and_says_why(cab_in, tmp_path, command):
    (tmp_path / "leak.py").write_text(LEAK)
    words = ("--attn", "leak.py:Leak", "--attn", "lla", "--pattern", "CC", "--out", "store")
    more = ("--scale", "tiny", "--seeds", "1") if command == "run" else ("--lengths", "64")
    done = cab_in(command, *words, *more, "--device", "cpu")
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert any("leak breaks the attention contract on causal-cross: no leak" in x for x in lines)
    assert all(line.startswith("cab: ") for line in lines)
    assert "cab check" in lines[-1]
    assert "--pattern causal-cross" in lines[-1]
    assert not list((tmp_path / "store").glob("*.parquet"))
