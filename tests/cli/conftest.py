import os
import subprocess
import sys

import pytest

CAB = [sys.executable, "-m", "cab"]


@pytest.fixture
def cab_in(tmp_path):
    """Run ``cab`` in an empty folder; gives the finished process."""

    def run(*words, timeout=280):
        return subprocess.run(
            [*CAB, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "COLUMNS": "120", "TERM": "dumb"},
        )

    return run
