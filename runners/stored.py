"""Cells that a store holds, beside what today's code would call them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cab.admission import options_of
from cab.candidate import Candidate, choose_candidate
from cab.cell import Cell
from cab.chosen_task import ChosenTask, choose_task
from cab.errors import CabError
from cab.info import Scale
from cab.patterns import Pattern
from cab.registries import TASKS
from cab.regularisers import of_mechanism, of_training
from cab.schema import Row, Status, run_order
from cab.store import ResultStore
from runners.cells import CellFactory

_IDENTITY = ("attention", "attention_options", "pattern", "task", "scale", "seed", "device")


@dataclass(frozen=True)
class StoredCell:
    """The rows of one run of a quality cell that ended well."""

    key: str
    rows: Sequence[Row]

    @property
    def first(self) -> Row:
        """A row, for what all of them share."""
        return self.rows[0]

    @property
    def identity(self) -> tuple[object, ...]:
        """What was measured, whatever its code was."""
        return tuple(getattr(self.first, name) for name in _IDENTITY)

    @property
    def witness(self) -> str | None:
        """The witness, as it was recorded; None where there is none."""
        return next((row.witness for row in self.rows if row.witness), None)

    @property
    def title(self) -> str:
        """A short name for displays."""
        row = self.first
        return f"{row.attention} · {row.task} · {row.pattern} · {row.scale} · seed {row.seed}"


def quality_cells(store: ResultStore) -> list[StoredCell]:
    """The run that counts of every quality cell that ended well, oldest first."""
    runs = _runs(_rows(store.read(kinds=["quality"])))
    return [
        StoredCell(cell, rows)
        for cell, rows in _counting(runs).items()
        if all(row.status == Status.OK.value for row in rows)
    ]


def rows_of_cells(store: ResultStore, keys: Collection[str]) -> dict[str, list[Row]]:
    """The rows of the run that counts of some cells, by cell key.

    Raises:
        StoreError: the store cannot be read.
    """
    wanted = pa.array(sorted(keys), pa.string())

    def keep(table: pa.Table) -> NDArray[np.bool_]:
        return np.asarray(pc.is_in(table["cell"], wanted), dtype=bool)

    return _counting(_runs(_rows(store.read(keep=keep)))) if keys else {}


def _runs(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by cell and run."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((row.cell, row.run_id or ""), []).append(row)
    return runs


def _counting(runs: Mapping[tuple[str, str], list[Row]]) -> dict[str, list[Row]]:
    """Of every cell the run that counts, the oldest first."""

    def order(item: tuple[tuple[str, str], list[Row]]) -> tuple[bool, float]:
        return run_order((row.status for row in item[1]), _time(item[1]).timestamp())

    found: dict[str, list[Row]] = {}
    for (cell, _), rows in sorted(runs.items(), key=order):
        found[cell] = rows
    return found


class Today:
    """What stored cells of a device are called by today's code; each name is looked up once."""

    def __init__(self, device: str) -> None:
        """Choose the device of the cells."""
        self._make = CellFactory(device)
        self._candidates: dict[tuple[str, str], Candidate] = {}
        self._tasks: dict[str, ChosenTask] = {}

    def cell(self, stored: StoredCell) -> Cell:
        """The cell of the same identity with the hashes of today's code.

        Raises:
            CabError: there is no such entry, option, task, pattern or scale any more, or it was
                measured on data of the user's own.
        """
        row = stored.first
        candidate = self._candidate(row.attention, row.attention_options or "{}")
        task = self._task(str(row.task))
        pattern = Pattern.parse(row.pattern)
        candidate.require(pattern)
        if not task.serves(pattern) or row.scale not in list(Scale):
            raise CabError(f"task {task.id} has no {pattern} slots at scale {row.scale}")
        if row.dataset is not None and task.info.dataset != row.dataset:
            raise CabError(f"{row.dataset} is not the embedded data of {task.id}")
        return self._make.quality(
            candidate, pattern, task, Scale(str(row.scale)), int(row.seed or 0)
        )

    def save(self) -> None:
        """Keep the hashes that were found out."""
        self._make.hashes.save()

    def _candidate(self, name: str, options: str) -> Candidate:
        if (name, options) not in self._candidates:
            given = _options(name, options)
            chosen = choose_candidate(name, of_mechanism(given), hashes=self._make.hashes)
            self._candidates[name, options] = replace(chosen, training=of_training(given))
        return self._candidates[name, options]

    def _task(self, name: str) -> ChosenTask:
        if name not in self._tasks:
            self._tasks[name] = choose_task(TASKS.resolve(name), hashes=self._make.hashes)
        return self._tasks[name]


def _options(name: str, words: str) -> dict[str, Any]:
    found = options_of(words)
    if found is None:
        raise CabError(f"the options of {name} are stored as {words!r}, which is no JSON object")
    return found


def _rows(table: pa.Table) -> Iterator[Row]:
    for fields in table.to_pylist():
        yield Row(**_plain(fields))


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return fields | {"samples": fields["samples"] or []}


def _time(rows: Iterable[Row]) -> datetime:
    """Of the last row."""
    known = (row.recorded_at for row in rows if row.recorded_at is not None)
    return max(known, default=datetime.fromtimestamp(0, UTC))
