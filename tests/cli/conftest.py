import os
import subprocess
import sys

import pytest

from cab import result_sources

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
            env={**os.environ, "COLUMNS": str(columns), "TERM": "dumb"},
        )

    return run
