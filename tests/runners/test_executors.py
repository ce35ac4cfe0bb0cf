"""Executors are made from options that they declare, by name."""

from importlib.metadata import EntryPoint

import pytest

from cab.errors import UnknownEntryError, UsageError
from runners.executors import selection
from runners.executors.local import LocalExecutor
from runners.executors.options import ExecutorOption, resolve
from runners.executors.selection import executor_of


class Queue:
    """An executor of another package."""

    OPTIONS = (ExecutorOption("queue", "short", "where jobs wait"),)

    def __init__(self, queue):
        self.queue = queue

    @classmethod
    def from_options(cls, options):
        return cls(**resolve("queue", cls.OPTIONS, options))


@pytest.fixture
def installed(monkeypatch):
    point = EntryPoint("queue", f"{__name__}:Queue", "cab.executors")
    monkeypatch.setattr(selection, "entry_points", lambda group: [point])


def test_the_local_one_takes_words_and_numbers():
    executor = executor_of("local", {"workers": "3", "timeout": 20, "action": "replay"})
    assert isinstance(executor, LocalExecutor)
    assert executor.width([]) == 3
    assert executor_of("local", {"workers": 2}).width([]) == 2
    assert executor_of("local", {}).width([]) >= 1


def test_its_declared_defaults_are_those_of_its_constructor():
    declared = {option.name: option.default for option in LocalExecutor.OPTIONS}
    assert vars(LocalExecutor.from_options({})) == vars(LocalExecutor()) == {
        f"_{name}": value for name, value in declared.items()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wrokers": 2}, "executor 'local' has no option 'wrokers'; it has workers, threads,"),
        ({"workers": "many"}, "'workers' of executor 'local' takes int, not 'many'"),
        ({"workers": -1}, "must be zero or positive"),
        ({"threads": 0}, "must be positive"),
        ({"timeout": "inf"}, "must be positive and finite"),
        ({"timeout": "nan"}, "must be positive and finite"),
        ({"action": "guess"}, "one of measure, replay, not 'guess'"),
    ],
)
def test_what_it_cannot_take_is_said_in_a_line(options, message):
    with pytest.raises(UsageError, match=message):
        LocalExecutor.from_options(options)


def test_another_packages_executor_has_its_own_options(installed):
    assert executor_of("queue", {}).queue == "short"
    assert executor_of("queue", {"queue": "long"}).queue == "long"
    with pytest.raises(UsageError, match="has no option 'threads'; it has queue"):
        executor_of("queue", {"threads": 2})
    with pytest.raises(UnknownEntryError, match="unknown executor 'local'"):
        executor_of("local", {})
