"""Prints the comparisons at the end of the session."""

import gc

import pytest
from rich.console import Console

from benchmarks.lla.collected import Collected
from benchmarks.lla.memory import FreshProcesses
from benchmarks.lla.report import tables

_COLLECTED = pytest.StashKey[Collected]()


@pytest.fixture(scope="session")
def collected(request):
    return request.config.stash.setdefault(_COLLECTED, Collected())


@pytest.fixture(scope="session")
def fresh_processes():
    with FreshProcesses() as processes:
        yield processes


@pytest.fixture(autouse=True)
def no_garbage_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def pytest_terminal_summary(terminalreporter, config):
    console = Console(width=140, no_color=True, highlight=False)
    for table in tables(config.stash.get(_COLLECTED, Collected())):
        with console.capture() as captured:
            console.print(table)
        terminalreporter.write_line("")
        terminalreporter.write(captured.get())
