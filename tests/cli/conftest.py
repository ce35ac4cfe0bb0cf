import os
import subprocess
import sys

import pytest

from cab import result_sources
from cab.cli.app import main
from tests.cli import forked
from tests.cli.stores import write_store

CAB = [sys.executable, "-m", "cab"]


@pytest.fixture(autouse=True)
def reference(monkeypatch, tmp_path_factory):
    """The folder of the reference results of commands that run in this process: an empty one, so
    that tests know all the rows there are.
    """
    folder = tmp_path_factory.mktemp("reference")
    monkeypatch.setattr(result_sources, "REFERENCE", folder)
    return folder


@pytest.fixture
def cab_in(tmp_path):
    """Run ``cab`` in an empty folder; gives the finished process."""

    def run(*words, timeout=280, columns=120):
        return subprocess.run(
            [*CAB, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=_environment(columns),
        )

    return run


@pytest.fixture
def forked_cab_in(tmp_path):
    """As `cab_in`, and faster: for commands that need no interpreter of their own."""

    def run(*words, timeout=280, columns=120):
        return forked.run([*map(str, words)], tmp_path, timeout, _environment(columns))

    return run


def _environment(columns):
    return {**os.environ, "COLUMNS": str(columns), "TERM": "dumb"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder with known standings."""
    folder = tmp_path_factory.mktemp("results")
    write_store(folder)
    return folder


@pytest.fixture
def called(monkeypatch, capsys, tmp_path):
    """Run ``cab`` in this process, in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cab", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def shown(called, store):
    """Standard output of a command on the store."""

    def run(command, *words):
        code, output, errors = called(command, *words, "--out", store)
        assert code == 0, errors
        assert not errors
        return output

    return run
