"""Executors by name, through the entry points of group ``cab.executors``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from cab.errors import UnknownEntryError
from runners.executors.events import Executor
from runners.executors.options import OptionValue


def executor_of(name: str, options: Mapping[str, OptionValue]) -> Executor:
    """An executor with the options that are given.

    Raises:
        UnknownEntryError: no installed package offers one of that name.
        UsageError: it has no such option, or a value does not fit.
    """
    return executor_class(name).from_options(options)


def executor_class(name: str) -> type[Executor]:
    """The class of an executor.

    Raises:
        UnknownEntryError: no installed package offers one of that name.
    """
    points: dict[str, Any] = {point.name: point for point in entry_points(group="cab.executors")}
    if name not in points:
        raise UnknownEntryError("executor", name, points)
    loaded: type[Executor] = points[name].load()
    return loaded
