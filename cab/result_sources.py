"""Where results are read from: the user's folder, and beside it the reference results.

The reference results were measured by the project and come with the package, so a fresh install has
a leaderboard. They are read only: nothing is ever written into an installed package. Where both
hold the same cell the user's own rows count (`cab/scoring/versions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cab.artifact import Artifact
from cab.label import Label
from cab.schema import TRIED_AGAIN, Status
from cab.store import ResultStore, joined

REFERENCE = Path(__file__).resolve().parents[1] / "results" / "reference"
"""The reference results: in a checkout, and beside ``cab`` where it is installed"""


def reference_store() -> ResultStore:
    """The reference results, labelled so because they lie there."""
    return ResultStore(REFERENCE, Label.REFERENCE, merge=False)


def store_at(folder: Path) -> ResultStore:
    """A results folder, which may be that of the reference results."""
    store = reference_store()
    return store if Path(folder).resolve() == store.root.resolve() else ResultStore(folder)


@dataclass(frozen=True)
class ResultSources:
    """A results folder with the reference results beside it; read like one store."""

    own: ResultStore
    reference: ResultStore | None

    @classmethod
    def at(cls, folder: Path, reference: bool = True) -> ResultSources:
        """Those of a results folder.

        Args:
            folder: of the user.
            reference: whether to read the reference results too.
        """
        own = store_at(folder)
        beside = reference and own.label is not Label.REFERENCE
        return cls(own, reference_store() if beside else None)

    @property
    def root(self) -> Path:
        """The user's folder."""
        return self.own.root

    @property
    def stores(self) -> tuple[ResultStore, ...]:
        """The user's own first."""
        return (self.own,) if self.reference is None else (self.own, self.reference)

    def files(self) -> list[Path]:
        """The Parquet files of all of them, in a fixed order."""
        return [path for store in self.stores for path in store.files()]

    def read(
        self,
        columns: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        dictionaries: bool = False,
        keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None,
    ) -> pa.Table:
        """All rows of all of them, as `ResultStore.read` gives those of one.

        Raises:
            StoreError: a file is not readable as Parquet; names it and says what to do.
        """
        tables = [
            table
            for store in self.stores
            for table in store.tables(columns, kinds, dictionaries, keep)
        ]
        return joined(tables, dictionaries)

    def complaints(self) -> list[str]:
        """What was left out of all that was read so far, a line for each file."""
        return [line for store in self.stores for line in store.complaints()]

    def remarks(self) -> list[str]:
        """What of it cannot be ranked or is named oddly, a line for each file."""
        return [line for store in self.stores for line in store.remarks()]

    def statuses(self) -> dict[str, set[str]]:
        """As `ResultStore.statuses`; where both have a cell, those of the user's own."""
        found: dict[str, set[str]] = {}
        for store in reversed(self.stores):
            found |= store.statuses()
        return found

    def finished(self, again: Collection[str] = TRIED_AGAIN) -> set[str]:
        """Keys of the cells that need not be run again, as `ResultStore.finished`."""
        return {cell for cell, statuses in self.statuses().items() if not statuses & set(again)}

    def artifacts(self, cell: str) -> list[Artifact]:
        """What a cell has made; empty where it has made nothing.

        Raises:
            StoreError: files are missing or not what the index says.
        """
        return next((made for store in self.stores if (made := store.artifacts(cell))), [])

    def has_artifacts(self, cell: str) -> bool:
        """Whether a cell has made something, without reading it."""
        return any(store.has_artifacts(cell) for store in self.stores)

    def from_reference(self, cells: Collection[str]) -> set[str]:
        """Which of some cells the reference results have numbers of, and the user's folder nothing:
        rows of the user's own, failures too, count before the reference's.
        """
        if self.reference is None:
            return set()
        measured = {
            cell for cell, found in self.reference.statuses().items() if Status.OK.value in found
        }
        return measured & set(cells) - self.own.statuses().keys()
