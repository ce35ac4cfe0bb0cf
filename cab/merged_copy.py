"""A merged copy of a store's many small files, so that reading them all takes seconds.

Every cell is a file, and opening one takes a millisecond. Once more than `SMALL` files lie in a
results folder, readers keep a copy of their rows beside it: parts that each cover some files, by
name, size and time of change. The files stay what counts. A part whose files changed or are gone
is not used, the copy may be deleted at any time, and where it cannot be written reading is only
slower.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cab.beside import Beside

FOLDER = "merged"
_OLD_FOLDER = ".merged"
"""Inside the results folder, where earlier versions had it"""
_PART = ".part"
"""Not ``.parquet``, for readers that find it where it must lie inside the results folder"""
SMALL = 256
"""Files that are read one by one"""
_OLD_SECONDS = 3600.0
_GROUP = 100_000
"""Rows of a row group"""

Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds"""


class MergedCopy:
    """The merged copy of one results folder."""

    def __init__(self, root: Path, beside: Beside) -> None:
        self._root = root
        self._beside = beside

    def paths(self, files: Sequence[Path], read: Callable[[Path], pa.Table | None]) -> list[Path]:
        """What to read in place of the files: parts of the copy, then files that none covers.

        Args:
            files: all files of the store.
            read: gives all rows of a file, or None for one that is not to be merged; what it raises
                passes through.
        """
        if len(files) <= SMALL:
            return list(files)
        try:
            stamps = _stamps(files)
        except OSError:  # one is gone already: whoever reads it says so
            return list(files)
        parts, covered = self._valid_parts(stamps)
        rest = [path for path in files if path.name not in covered]
        if len(rest) > SMALL:
            part = self._add(rest, stamps, read)
            if part is not None:
                return [*parts, part[0], *part[1]]
        return [*parts, *rest]

    def remove_old(self) -> None:
        """Remove a copy that lies inside the results folder and need not."""
        names = [_OLD_FOLDER, *([f"_{FOLDER}"] if self._beside.usable() else [])]
        for name in names:
            shutil.rmtree(self._root / name, ignore_errors=True)

    def _valid_parts(self, stamps: dict[str, Stamp]) -> tuple[list[Path], set[str]]:
        """Parts whose files all are as they were, and the names of these files."""
        parts: list[Path] = []
        covered: set[str] = set()
        folders = self._beside.reading(FOLDER)
        for index in sorted(path for folder in folders for path in folder.glob("*.json")):
            part = index.with_suffix(_PART)
            try:
                listed = json.loads(index.read_text())
                files = {name: tuple(stamp) for name, stamp in listed.items()}
                pq.read_metadata(part)
            except (OSError, ValueError, AttributeError, TypeError, pa.ArrowException):
                _remove_old(index, part)
                continue
            whole = all(stamps.get(name) == stamp for name, stamp in files.items())
            # Two readers may have merged the same files at the same time.
            if whole and covered.isdisjoint(files):
                parts.append(part)
                covered |= set(files)
            else:
                _remove_old(index, part)
        return parts, covered

    def _add(
        self,
        files: Sequence[Path],
        stamps: dict[str, Stamp],
        read: Callable[[Path], pa.Table | None],
    ) -> tuple[Path, list[Path]] | None:
        """A new part of some files, with those of them that it does not cover; None where it cannot
        be written.
        """
        try:
            folder = self._beside.writing(FOLDER)
        except OSError:
            return None
        part = folder / f"{uuid.uuid4().hex}{_PART}"
        temporary = part.with_suffix(".tmp")
        try:
            merged: list[Path] = []
            _write(temporary, _noted(files, read, merged))
            temporary.rename(part)
            # The index last: a part without one does not exist for readers.
            covers = {path.name: stamps[path.name] for path in merged}
            listing = part.with_suffix(".listing")
            listing.write_text(json.dumps(covers))
            listing.rename(part.with_suffix(".json"))
        except OSError:
            _remove(temporary, part)
            return None
        except BaseException:
            _remove(temporary, part)
            raise
        for left in folder.iterdir():  # by readers that died while they wrote
            if not left.with_suffix(".json").exists():
                _remove_old(left)
        return part, [path for path in files if path.name not in covers]


def _noted(
    files: Sequence[Path], read: Callable[[Path], pa.Table | None], merged: list[Path]
) -> Iterator[pa.Table]:
    """The tables of those files that may be merged, which are noted."""
    for path in files:
        table = read(path)
        if table is not None:
            merged.append(path)
            yield table


def _stamps(files: Sequence[Path]) -> dict[str, Stamp]:
    found = {}
    for path in files:
        state = path.stat()
        found[path.name] = (state.st_size, state.st_mtime_ns)
    return found


def _write(target: Path, tables: Iterable[pa.Table]) -> None:
    """All rows, those of a kind together, so that a reader of one kind skips the others."""
    kept: dict[str | None, list[pa.Table]] = {}
    counts: dict[str | None, int] = {}
    writer: pq.ParquetWriter | None = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(target, table.schema, compression="zstd")
            for kind in pc.unique(table["kind"]).to_pylist():
                column = table["kind"]
                own = table.filter(column.is_null() if kind is None else pc.equal(column, kind))
                kept.setdefault(kind, []).append(own)
                counts[kind] = counts.get(kind, 0) + own.num_rows
                if counts[kind] >= _GROUP:
                    writer.write_table(pa.concat_tables(kept.pop(kind)), row_group_size=_GROUP)
                    counts[kind] = 0
        for waiting in kept.values():
            if writer is not None:
                writer.write_table(pa.concat_tables(waiting), row_group_size=_GROUP)
    finally:
        if writer is not None:
            writer.close()


def _remove_old(*paths: Path) -> None:
    """Unless they are new: another reader, who listed the store later, may be using them."""
    try:
        if time.time() - paths[0].stat().st_mtime > _OLD_SECONDS:
            _remove(*paths)
    except OSError:  # another reader was first
        return


def _remove(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # a folder that cannot be written keeps what it has
            continue
