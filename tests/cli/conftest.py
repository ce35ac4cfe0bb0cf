import os
import subprocess
import sys

import pytest

from cab import result_sources
from tests.cli import forked

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
