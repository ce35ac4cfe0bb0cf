"""Folders of the user's own that are named as the suite's packages are."""

import os
import subprocess
import sys

import pytest

from cab.own_code import ROOT

SCRIPT = """
import cab

module = cab.attention("linear-elu", pattern="CS", heads=2, head_dim=8)
assert type(module).__module__ == "attentions.linear_elu"
assert "forecasting" in {info.id for info in cab.tasks()}
from cab.registries import TASKS
assert TASKS.load(TASKS.resolve("forecasting")).__module__.startswith("tasks.forecasting")
print("works")
"""


@pytest.fixture
def crowded(tmp_path):
    """A folder with packages and a module that have the names of the suite's."""
    for name in ("attentions", "runners", "results"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not the suite')\n")
    (tmp_path / "tasks.py").write_text("THEIRS = 1\n")
    return tmp_path


def script(folder, text):
    """Run a script of the folder, which is then the first place where modules are looked for."""
    (folder / "mine.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "mine.py"], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_script_beside_such_folders_uses_cab(crowded):
    done = script(crowded, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "works\n"


def test_a_package_that_was_imported_before_is_named(crowded):
    done = script(crowded, "import tasks\nassert tasks.THEIRS\n" + SCRIPT)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("cab.errors.RegistrationError: ")
    assert f"{crowded / 'tasks.py'} shadows the package 'tasks' of this suite (in {ROOT})" in last
    assert "it was imported before" in last


def test_a_file_beside_such_folders_is_a_candidate(crowded):
    (crowded / "own.py").write_text(
        "from attentions.softmax import SoftmaxAttention\n\n\n"
        "class Own(SoftmaxAttention):\n    info = None\n"
    )
    text = "import cab\nprint(cab.attention('own.py:Own', pattern='CS', heads=2, head_dim=8))\n"
    done = script(crowded, text)
    assert done.returncode == 0, done.stderr
    assert "Own" in done.stdout


def test_the_command_names_the_folder(crowded):
    done = subprocess.run(
        [sys.executable, "-m", "cab", "list"],
        cwd=crowded, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("cab: ")
    assert "shadows the package 'attentions'" in line
    assert str(crowded) in line
