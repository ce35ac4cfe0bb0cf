"""Append-only store of result rows: a folder of Parquet files.

A writer appends one whole file: it is written under a temporary name, flushed to the disk and then
renamed, so a reader never sees half a file and concurrent writers never touch each other's. A
process that dies while writing leaves a ``.tmp`` file, which readers ignore and the next writer
removes once it is old.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cab.artifact import Artifact
from cab.errors import StoreError
from cab.merged_copy import MergedCopy
from cab.schema import FINISHED, SCHEMA, Row, table_of

ARTIFACTS = "artifacts"
"""Folder of the cells' artifacts, below the results folder."""
_INDEX = "index.json"
_STALE_SECONDS = 3600.0
_SMALL = 20_000
"""Rows of a file that one thread reads"""


class ResultStore:
    """The Parquet files of one results folder."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def prepare(self) -> None:
        """Make the folder and make sure that it can be written.

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

    def attach(self, cell: str, artifacts: Sequence[Artifact]) -> None:
        """Keep a cell's artifacts under ``artifacts/<cell>``, in place of earlier ones.

        Raises:
            StoreError: a file cannot be written.
        """
        folder = self.root / ARTIFACTS / cell
        index = [{"file": a.file, "caption": a.caption} for a in artifacts]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for artifact in artifacts:
                _write(folder / artifact.file, artifact.content)
            # Last: a reader takes what the index names, so it never sees half of a set.
            _write(folder / _INDEX, json.dumps(index, indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error

    def artifacts(self, cell: str) -> list[Artifact]:
        """What a cell has made; empty where it has made nothing.

        Raises:
            StoreError: files are missing or not what the index says.
        """
        folder = self.root / ARTIFACTS / cell
        if not (folder / _INDEX).exists():
            return []
        try:
            index = json.loads((folder / _INDEX).read_bytes())
            found = []
            for entry in index:
                name, _, suffix = entry["file"].partition(".")
                content = (folder / f"{name}.{suffix}").read_bytes()
                found.append(Artifact(name, suffix, entry["caption"], content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"the artifacts in {folder} are damaged ({error}); remove that folder"
            ) from error
        return found

    def append(self, rows: Sequence[Row]) -> Path:
        """Add rows as one new file; on return they are on the disk.

        Raises:
            StoreError: the file cannot be written; nothing that was stored is lost.
        """
        name = f"{rows[0].cell[:16]}-{uuid.uuid4().hex[:12]}.parquet"
        target = self.root / name
        temporary = self.root / f".{name}.tmp"
        try:
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
        wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(c) for c in columns])
        if dictionaries:
            wanted = pa.schema([_as_dictionary(field) for field in wanted])
        tables = [wanted.empty_table()]
        paths = MergedCopy(self.root).paths(self.files(), self.read_file)
        tables += [self._read_file(path, wanted, kinds, keep) for path in paths]
        table = pa.concat_tables(tables)
        return table.unify_dictionaries() if dictionaries else table

    def read_file(self, path: Path) -> pa.Table:
        """All rows of one file, in the current schema.

        Raises:
            StoreError: it is not readable as Parquet.
        """
        return self._read_file(path, SCHEMA)

    def statuses(self) -> dict[str, set[str]]:
        """Every status that a cell's rows record, by cell key."""
        table = self.read(["cell", "status"])
        found: dict[str, set[str]] = {}
        for cell, status in zip(*(column.to_pylist() for column in table.columns), strict=True):
            found.setdefault(cell, set()).add(status)
        return found

    def finished(self) -> set[str]:
        """Keys of the cells that need not be run again."""
        return {cell for cell, statuses in self.statuses().items() if statuses & FINISHED}

    @staticmethod
    def _read_file(
        path: Path,
        wanted: pa.Schema,
        kinds: Sequence[str] | None = None,
        keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None,
    ) -> pa.Table:
        words = [f.name for f in wanted if pa.types.is_dictionary(f.type)]
        try:
            file = pq.ParquetFile(path, read_dictionary=words)
            present = set(file.schema_arrow.names)
            names = [name for name in wanted.names if name in present]
            read = names if kinds is None or "kind" in names else ["kind", *names]
            groups, mixed = _row_groups(file.metadata, kinds)
            # Handing small files to other threads costs more than it gives.
            parallel = file.metadata.num_rows > _SMALL
            table = file.read_row_groups(groups, columns=read, use_threads=parallel)
            mask = None
            if mixed:
                mask = pc.is_in(table["kind"], pa.array(kinds, pa.string()))
            columns = [
                table[field.name].cast(field.type)
                if field.name in present
                else pa.nulls(table.num_rows, field.type)
                for field in wanted
            ]
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"results file {path} is not readable ({' '.join(str(error).split())[:120]}); "
                "move it away and run again to measure its cell anew"
            ) from error
        table = pa.table(columns, schema=wanted)
        if keep is not None:
            kept = pa.array(keep(table))
            mask = kept if mask is None else pc.and_(mask, kept)
        # In one go: every filter copies what it keeps.
        return table if mask is None else table.filter(mask)

    def _sweep(self) -> None:
        """Remove what writers that died long ago left behind."""
        for path in self.root.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:  # another process was first
                continue


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


def _as_dictionary(field: pa.Field) -> pa.Field:
    if not pa.types.is_string(field.type):
        return field
    return pa.field(field.name, pa.dictionary(pa.int32(), pa.string()))


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    temporary.rename(target)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
