"""What all suites share."""

import gc

import pytest

from benchmarks.memory import FreshProcesses


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
