"""A task with the data that it is measured on, looked up once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cab.errors import UsageError
from cab.info import Scale, TaskInfo
from cab.own_code import ROOT
from cab.patterns import Pattern
from cab.plan_hashes import PlanHashes
from cab.registries import TASKS, named_tasks
from cab.registry import Entry, OfEntry


@dataclass(frozen=True)
class ChosenTask(OfEntry[TaskInfo]):
    """A task as it is to be measured. Nothing of it is imported until `load`."""

    entry: Entry[TaskInfo]
    data_dir: Path | None = None
    """Folder of its original data; None: the embedded data"""
    named: bool = True
    """Whether the user named it, or it came with all others"""
    hashes: PlanHashes = field(default_factory=PlanHashes, repr=False, compare=False)

    def serves(self, pattern: Pattern) -> bool:
        """Whether it is measured on a pattern: it has slots of it, and the pair is not retired or
        the user named the task.
        """
        return pattern in self.info.backbones and (self.named or pattern not in self.info.retired)

    def hash(self) -> str:
        """Of the code that a cell of it depends on."""
        return self.hashes.task(self.target, self.info)

    def data_hash(self, pattern: Pattern, scale: Scale) -> str:
        """Of the data in use. Finding it out loads the task, which checks its data before anything
        is trained.

        Raises:
            DataError: data missing, truncated or altered.
        """

        def compute() -> str:
            return str(self.load()(pattern, scale, self.data_dir).data_hash)

        where = self.data_dir.resolve() if self.data_dir else ""
        key = f"{self.id} {self.hash()} {pattern} {scale} {where}"
        return self.hashes.data(key, self._files, compute)

    def load(self) -> type[Any]:
        """Its class, imported.

        Raises:
            RegistrationError: it does not import, or is no task.
        """
        return TASKS.load(self.entry)

    def _files(self) -> Iterator[Path]:
        yield from (ROOT / "tasks" / "data").glob("*.*")
        if self.data_dir:
            yield from (path for path in self.data_dir.rglob("*") if path.is_file())


def choose_task(
    entry: Entry[TaskInfo],
    data_dir: Path | None = None,
    hashes: PlanHashes | None = None,
    named: bool = True,
) -> ChosenTask:
    """A task with its own data.

    Args:
        entry: of the task.
        data_dir: folder with original data, or with a folder of it for each task.
        hashes: of the plan.
        named: whether the user named it.
    """
    return ChosenTask(entry, data_dir_of(entry.info, data_dir), named, hashes or PlanHashes())


def choose_tasks(
    names: Sequence[str],
    scale: Scale,
    data_dir: Path | None = None,
    hashes: PlanHashes | None = None,
) -> list[ChosenTask]:
    """The tasks of ids, ``file.py:Class``, ``module:Class`` and the words for many; without names
    all that are no probes. Those that nobody named are left out where they lack the scale.

    Raises:
        UnknownEntryError, RegistrationError; UsageError: none is left, or none reads the data.
    """
    hashes = hashes or PlanHashes()
    known = TASKS.entries()
    asked = named_tasks(names) or [name for name in known if not known[name].info.probe]
    entries = {name: known.get(name) or TASKS.resolve(name) for name in asked}
    kept = [
        choose_task(entry, data_dir, hashes, name in names)
        for name, entry in entries.items()
        if scale in entry.info.scales or name in names
    ]
    if not kept:
        raise UsageError(f"none of the tasks {', '.join(asked)} has a scale {scale}")
    if data_dir is not None and not any(task.info.data_dir for task in kept):
        listed = ", ".join(task.id for task in kept)
        raise UsageError(f"--data-dir is of no use here: {listed} reads no original data")
    return kept


def data_dir_of(task: TaskInfo, data_dir: Path | None) -> Path | None:
    """Folder of a task's original data: ``data_dir/<task id>`` where there is one, else
    ``data_dir`` itself; None for a task that reads none.
    """
    if data_dir is None or not task.data_dir:
        return None
    own = data_dir / task.id
    return own if own.is_dir() else data_dir
