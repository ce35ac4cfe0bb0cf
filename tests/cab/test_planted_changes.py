"""Changes that change numbers change keys, changes that do not leave them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cab.own_code import ROOT
from tests.cab.planted import NUMBERS, WORDS

DRIVER = Path(__file__).with_name("planted.py")
PACKAGES = ("cab", "attentions", "tasks", "runners")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("copy") / "suite"
    for package in PACKAGES:
        only_code = shutil.ignore_patterns("*.parquet", "*.json", "__pycache__")
        shutil.copytree(ROOT / package, root / package, ignore=only_code)
    return root


def run(arguments, path, python=sys.executable):
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [python, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def moved(copy):
    done = run([DRIVER, copy], copy)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("change", NUMBERS)
def test_what_changes_numbers_changes_a_key(moved, change):
    assert moved[change]


@pytest.mark.parametrize("change", WORDS)
def test_what_changes_no_number_changes_no_key(moved, change):
    assert moved[change] == []


def test_a_change_moves_the_hashes_of_what_uses_it_alone(moved):
    assert moved["an engine"] == ["attention"]
    assert moved["the schedule's end"] == ["runner"]
    assert moved["a task's loss"] == ["task"]


HASHES = """
import json
from cab.code_hash import attention_hash, runner_hash, task_hash
from cab.registries import ATTENTIONS, TASKS
found = {f"{n} {k}": attention_hash(e.target, k)
         for n, e in ATTENTIONS.entries().items() for k in ("quality", "efficiency")}
found |= {n: task_hash(e.target, e.info) for n, e in TASKS.entries().items()}
found |= {k: runner_hash(k) for k in ("quality", "efficiency")}
print(json.dumps(found))
"""


def other_pythons():
    """Interpreters of other versions that run here, by version."""
    for version in ("3.12", "3.13", "3.14"):
        python = shutil.which(f"python{version}")
        environment = {**os.environ, "PYENV_VERSION": version}
        if python is None:
            continue
        done = subprocess.run(
            [python, "-c", "import sys; print(sys.executable)"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            yield version, done.stdout.strip()


def test_every_python_gives_the_same_hashes():
    pythons = dict(other_pythons())
    if not pythons:
        pytest.skip("no other Python is installed here")
    packages = next(p for p in sys.path if p.endswith("-packages"))
    path = f"{ROOT}{os.pathsep}{packages}"
    here = run(["-c", HASHES], path)
    assert here.returncode == 0, here.stderr
    for version, python in pythons.items():
        there = run(["-c", HASHES], path, python)
        assert there.returncode == 0, there.stderr
        assert json.loads(there.stdout) == json.loads(here.stdout), version
