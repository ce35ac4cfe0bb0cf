"""Prints the comparisons at the end of the session."""

import pytest

from benchmarks.lla.collected import Collected
from benchmarks.lla.report import tables
from benchmarks.printing import print_tables

_COLLECTED = pytest.StashKey[Collected]()


@pytest.fixture(scope="session")
def collected(request):
    return request.config.stash.setdefault(_COLLECTED, Collected())


def pytest_terminal_summary(terminalreporter, config):
    print_tables(terminalreporter, tables(config.stash.get(_COLLECTED, Collected())))
