"""Whole commands that must feel instant: `make bench`."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("words", [["--help"], ["list", "attentions"], ["list", "tasks"]])
def test_startup(benchmark, words):
    command = [sys.executable, "-m", "cab", *words]
    benchmark.pedantic(
        subprocess.run,
        (command,),
        {"check": True, "capture_output": True},
        rounds=10,
        warmup_rounds=2,
    )
