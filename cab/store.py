"""Append-only store of result rows: a folder of Parquet files, and nothing else.

A writer appends one whole file: it is written beside the folder (`cab.beside`), flushed to the disk
and then moved into it, so a reader never sees half a file and concurrent writers never touch each
other's. A process that dies while writing leaves a ``.tmp`` file, which the next writer removes
once it is old.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cab.admission import (
    cleaned,
    complete_rows,
    lacking,
    unrankable_rows,
    unreadable_options,
)
from cab.artifact import Artifact
from cab.artifact_folders import ArtifactFolders
from cab.beside import Beside
from cab.errors import StoreError
from cab.label import Label
from cab.merged_copy import MergedCopy
from cab.schema import SCHEMA, TRIED_AGAIN, Row, run_order, table_of

DRAWN = "drawn"
"""Beside a results folder: tables and plots that are made of its rows"""
_LABEL = "label"
_STALE_SECONDS = 3600.0
_SMALL = 20_000
"""Rows of a file that one thread reads"""


class ResultStore:
    """The Parquet files of one results folder.

    Args:
        root: the folder.
        label: who measured what lies there. Every row that is read carries it, whatever its file
            says: a label is no more than a word in a file that anybody can write.
        merge: whether reading many small files may leave a merged copy of them beside the folder.
    """

    def __init__(
        self, root: Path, label: Label = Label.SELF_REPORTED, *, merge: bool = True
    ) -> None:
        self.root = Path(root)
        self.label = label
        self.beside = Beside(self.root)
        self.made = ArtifactFolders(self.root, self.beside)
        self._merged = MergedCopy(self.root, self.beside) if merge else None
        self._complaints: dict[str, dict[str, None]] = {}
        self._remarks: dict[str, dict[str, None]] = {}

    def prepare(self) -> None:
        """Make the folder and make sure that it can be written; bring what an earlier version has
        left in it to today's place.

        Raises:
            StoreError: it cannot.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".{uuid.uuid4().hex}.tmp"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"cannot write to the results folder {self.root}: {error.strerror or error}; "
                "give another one with --out"
            ) from error
        self._sweep()
        self.made.move_old()
        self.beside.take_in(self.root / f"_{DRAWN}", DRAWN, os.path.exists)
        if self._merged is not None:
            self._merged.remove_old()

    def drawings(self) -> Path:
        """The folder for tables and plots that are made of the rows.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            return self.beside.writing(DRAWN)
        except OSError as error:
            raise StoreError(
                f"cannot write beside {self.root}: {error.strerror or error}"
            ) from error

    def attach(self, cell: str, artifacts: Sequence[Artifact]) -> None:
        """Keep a cell's artifacts, in place of earlier ones.

        Raises:
            StoreError: a file cannot be written.
        """
        self.made.attach(cell, artifacts)

    def artifacts(self, cell: str) -> list[Artifact]:
        """What a cell has made; empty where it has made nothing.

        Raises:
            StoreError: files are missing or not what the index says.
        """
        return self.made.of(cell)

    def has_artifacts(self, cell: str) -> bool:
        """Whether a cell has made something, without reading it."""
        return self.made.has(cell)

    def append(self, rows: Sequence[Row]) -> Path:
        """Add rows as one new file; on return they are on the disk.

        Raises:
            StoreError: the file cannot be written; nothing that was stored is lost.
        """
        name = f"{rows[0].cell[:16]}-{uuid.uuid4().hex[:12]}.parquet"
        target = self.root / name
        try:
            temporary = self.beside.temporary(name)
            with temporary.open("wb") as file:
                pq.write_table(table_of(list(rows)), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
            _fsync_folder(self.root)
        except OSError as error:
            raise StoreError(
                f"cannot write to the results folder {self.root}: {error.strerror or error}"
            ) from error
        return target

    def files(self) -> list[Path]:
        """The Parquet files, in a fixed order."""
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file, not a results folder")
        try:
            return sorted(p for p in self.root.glob("*.parquet") if not p.name.startswith("."))
        except OSError as error:
            raise StoreError(f"cannot read the results folder {self.root}: {error}") from error

    def read(
        self,
        columns: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        dictionaries: bool = False,
        keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None,
    ) -> pa.Table:
        """All rows of all files (some columns of them, of some kinds), in the current schema.

        Args:
            columns: None for all.
            kinds: values of the column ``kind`` to keep; None for all.
            dictionaries: words as dictionaries, for readers that group large stores by them.
            keep: says which rows of a file's table to keep; None for all.

        Raises:
            StoreError: a file is not readable as Parquet; names it and says what to do.
        """
        return joined(self.tables(columns, kinds, dictionaries, keep), dictionaries)

    def tables(
        self,
        columns: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        dictionaries: bool = False,
        keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None,
    ) -> list[pa.Table]:
        """The tables that `read` joins: an empty one, and one for each file."""
        wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(c) for c in columns])
        if dictionaries:
            wanted = pa.schema([_as_dictionary(field) for field in wanted])
        paths = self.files()
        if self._merged is not None:
            paths = self._merged.paths(paths, self._to_merge)
        read = [self._read_file(path, wanted, kinds, keep) for path in paths]
        return [wanted.empty_table(), *read]

    def read_file(self, path: Path) -> pa.Table:
        """All rows of one file, in the current schema.

        Raises:
            StoreError: it is not readable as Parquet.
        """
        return self._read_file(path, SCHEMA)

    def complaints(self) -> list[str]:
        """What was left out of all that was read so far, and of which file; a line for each."""
        return _lines(self._complaints)

    def remarks(self) -> list[str]:
        """What of all that was read so far cannot be ranked or is named oddly, by file."""
        return _lines(self._remarks)

    def _to_merge(self, path: Path) -> pa.Table | None:
        """As `read_file`; None where some rows are left out, so that it is always said of which
        file.
        """
        table = self.read_file(path)
        return None if str(path) in self._complaints else table

    def _complain(self, path: Path, words: Iterable[str]) -> None:
        self._complaints.setdefault(str(path), {}).update(dict.fromkeys(words))

    def statuses(self) -> dict[str, set[str]]:
        """Every status that the run that counts of a cell records, by cell key: an end without a
        number replaces no number of an earlier run (`cab.schema.run_order`).
        """
        table = self.read(["cell", "run_id", "status", "recorded_at"])
        times = pc.cast(table["recorded_at"], pa.int64()).fill_null(-1)
        table = table.set_column(3, "recorded_at", times)
        grouped = table.group_by(["cell", "run_id", "status"]).aggregate([("recorded_at", "max")])
        names = ("cell", "run_id", "status", "recorded_at_max")
        runs: dict[str, dict[str | None, list[tuple[str, float]]]] = {}
        columns = (grouped[name].to_pylist() for name in names)
        for cell, run, status, last in zip(*columns, strict=True):
            runs.setdefault(cell, {}).setdefault(run, []).append((status, last))
        return {cell: _counting(list(own.values())) for cell, own in runs.items()}

    def finished(self, again: Collection[str] = TRIED_AGAIN) -> set[str]:
        """Keys of the cells that need not be run again.

        Args:
            again: statuses that are tried again, in a part of a cell as well.
        """
        return {cell for cell, statuses in self.statuses().items() if not statuses & set(again)}

    def _read_file(
        self,
        path: Path,
        wanted: pa.Schema,
        kinds: Sequence[str] | None = None,
        keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None,
    ) -> pa.Table:
        words = [f.name for f in wanted if pa.types.is_dictionary(f.type)]
        try:
            file = _opened(path, words)
            absent = lacking(file.schema_arrow.names)
            if absent:
                self._complain(path, [f"left out, no results: it has no {', '.join(absent)}"])
                return wanted.empty_table()
            present = set(file.schema_arrow.names) - {_LABEL}
            names = [name for name in wanted.names if name in present]
            read = names if kinds is None or "kind" in names else ["kind", *names]
            read = read or file.schema_arrow.names[:1]  # without a column there are no rows
            groups, mixed = _row_groups(file.metadata, kinds)
            # Handing small files to other threads costs more than it gives.
            parallel = file.metadata.num_rows > _SMALL
            table = file.read_row_groups(groups, columns=read, use_threads=parallel)
            mask = None
            if mixed:
                mask = pc.is_in(table["kind"], pa.array(kinds, pa.string()))
            columns = [self._column(table, field, present, path) for field in wanted]
            if any(column is None for column in columns):
                return wanted.empty_table()
        except (OSError, pa.ArrowException) as error:
            what_to_do = (
                "install cab again, or read without it: --no-reference"
                if self.label is Label.REFERENCE
                else "move it away and run again to measure its cell anew"
            )
            raise StoreError(
                f"results file {path} is not readable ({' '.join(str(error).split())[:120]}); "
                f"{what_to_do}"
            ) from error
        table = pa.table(columns, schema=wanted)
        complete, wrong = complete_rows(table)
        if complete is not None:
            mask = pa.array(complete) if mask is None else pc.and_(mask, pa.array(complete))
        if wrong:
            self._complain(path, wrong)
        if odd := [*unreadable_options(table), *unrankable_rows(table)]:
            self._remarks.setdefault(str(path), {}).update(dict.fromkeys(odd))
        if keep is not None:
            kept = pa.array(keep(table))
            mask = kept if mask is None else pc.and_(mask, kept)
        # In one go: every filter copies what it keeps.
        return table if mask is None else table.filter(mask)

    def _column(
        self, table: pa.Table, field: pa.Field, present: Container[str], path: Path
    ) -> pa.Array | pa.ChunkedArray | None:
        """A column in its type of today; None where it holds something else."""
        if field.name == _LABEL:
            return _constant(self.label.value, table.num_rows, field.type)
        if field.name in present:
            try:
                return cleaned(field.name, table[field.name].cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                kind = table[field.name].type
                self._complain(path, [f"left out, no results: its {field.name} is {kind}"])
                return None
        return cleaned(field.name, pa.chunked_array([pa.nulls(table.num_rows, field.type)]))

    def _sweep(self) -> None:
        """Remove what writers that died long ago left behind."""
        for path in self.beside.temporaries():
            with contextlib.suppress(OSError):  # another process was first, or it is another user's
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _counting(runs: Sequence[Sequence[tuple[str, float]]]) -> set[str]:
    """The statuses of the run that counts; each run is its statuses with their last times."""

    def order(run: Sequence[tuple[str, float]]) -> tuple[bool, float]:
        return run_order((status for status, _ in run), max(last for _, last in run))

    return {status for status, _ in max(runs, key=order)}


def _lines(found: Mapping[str, Iterable[str]]) -> list[str]:
    return [f"{name}: {', '.join(words)}" for name, words in found.items()]


def _opened(path: Path, words: Sequence[str]) -> pq.ParquetFile:
    """A file whose columns of some names are read as dictionaries, where it has words there."""
    try:
        return pq.ParquetFile(path, read_dictionary=words)
    except KeyError:  # how Arrow says that there is no such column
        plain = {field.name for field in pq.read_schema(path) if not pa.types.is_nested(field.type)}
        return pq.ParquetFile(path, read_dictionary=[word for word in words if word in plain])


def joined(tables: Sequence[pa.Table], dictionaries: bool) -> pa.Table:
    """Tables of one schema as one; words as dictionaries share one dictionary for each column."""
    table = pa.concat_tables(tables)
    return table.unify_dictionaries() if dictionaries else table


def _row_groups(metadata: pq.FileMetaData, kinds: Sequence[str] | None) -> tuple[list[int], bool]:
    """Row groups that may hold rows of some kinds, and whether they may hold rows of others too, by
    the statistics of the column.
    """
    groups = list(range(metadata.num_row_groups))
    if kinds is None:
        return groups, False
    if "kind" not in metadata.schema.names:
        return [], False
    place = metadata.schema.names.index("kind")
    found, mixed = [], False
    for group in groups:
        statistics = metadata.row_group(group).column(place).statistics
        known = statistics is not None and statistics.has_min_max
        if known and not any(statistics.min <= kind <= statistics.max for kind in kinds):
            continue
        found.append(group)
        mixed |= not known or statistics.min != statistics.max or statistics.null_count != 0
    return found, mixed


def _constant(word: str, rows: int, type: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(type):
        return pa.repeat(pa.scalar(word, type), rows)
    codes = pa.array(np.zeros(rows, dtype=np.int32))
    return pa.DictionaryArray.from_arrays(codes, pa.array([word], type.value_type))


def _as_dictionary(field: pa.Field) -> pa.Field:
    if not pa.types.is_string(field.type):
        return field
    return pa.field(field.name, pa.dictionary(pa.int32(), pa.string()))


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
