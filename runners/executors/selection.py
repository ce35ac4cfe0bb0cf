"""Executors by name, through the entry points of group ``cab.executors``."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from cab.errors import UnknownEntryError
from runners.executors.events import Executor


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
