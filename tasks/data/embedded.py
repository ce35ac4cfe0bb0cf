"""Reads the embedded data sets: small, real, redistributable, each checked before it is used.

    table = dataset("web-bible").select("test")

The files lie beside this module, described by `manifest.json`. A file whose SHA-256 is not the
manifest's is never read, so that a result always belongs to the data that its hash names.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cab.errors import DataError, UnknownEntryError

SPLITS = ("train", "validation", "test")

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Source:
    """The published package that a data set was built from."""

    package: str
    version: str
    filename: str
    sha256: str
    download: str
    """The command that fetches it."""


@dataclass(frozen=True)
class EmbeddedDataset:
    """An entry of the manifest, and the way to its rows."""

    name: str
    title: str
    description: str
    source: Source
    licence: str
    """SPDX expression; ``LicenseRef-Public-Domain`` where no law protects the text."""
    attribution: str
    file: str
    bytes: int
    sha256: str
    rows: int
    columns: tuple[str, ...]
    id_column: str | None
    """The column that the splits name; None where a split is a range of rows."""
    split_rule: str
    splits: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, str]
    """Items of the source that are not in the table, each with the reason."""
    notes: tuple[str, ...]
    """What a user should know: defects of the source, repairs, oddities."""
    filled: Mapping[str, int]
    """Per column, the values that the source does not have."""
    build: str
    """The module that builds the file, for ``python -m``."""
    built_with: str
    folder: Path | None = None
    """Where the file lies; None: in the package."""

    @property
    def data_hash(self) -> str:
        """SHA-256 of the file, as 64 hexadecimal digits."""
        return self.sha256

    def table(self) -> pa.Table:
        """All rows, in a fixed order.

        Raises:
            DataError: the file is missing, truncated or altered.
        """
        return _checked_table(self.folder, self.file, self.bytes, self.sha256, self._remedy)

    def split(self, name: str) -> tuple[str, ...]:
        """The ids of a split, in the order of the table; for a series one "first:end" of rows.

        Raises:
            UnknownEntryError: not one of `SPLITS`.
        """
        if name not in self.splits:
            raise UnknownEntryError("split", name, self.splits)
        return self.splits[name]

    def select(self, name: str) -> pa.Table:
        """The rows of a split.

        Raises:
            DataError: the file is missing, truncated or altered.
            UnknownEntryError: not one of `SPLITS`.
        """
        members, table = self.split(name), self.table()
        if self.id_column is None:
            first, end = map(int, members[0].split(":"))
            return table.slice(first, end - first)
        return table.filter(pc.is_in(table[self.id_column], value_set=pa.array(members)))

    @property
    def _remedy(self) -> str:
        return (
            f"reinstall cab, or `{self.source.download}` and `python -m {self.build} "
            f"{self.source.filename}`"
        )


def names(folder: Path | None = None) -> tuple[str, ...]:
    """The names of all data sets, sorted.

    Raises:
        DataError: see `dataset`.
    """
    return tuple(_manifest(folder))


def dataset(name: str, folder: Path | None = None) -> EmbeddedDataset:
    """The data set of that name.

    Args:
        name: one of `names()`.
        folder: where manifest and files lie; by default in the package.

    Raises:
        DataError: the manifest is missing or unreadable.
        UnknownEntryError: no data set has that name.
    """
    entries = _manifest(folder)
    if name not in entries:
        raise UnknownEntryError("data set", name, entries)
    return entries[name]


@functools.cache
def _manifest(folder: Path | None) -> Mapping[str, EmbeddedDataset]:
    content = _read(folder, MANIFEST, "reinstall cab")
    try:
        entries = json.loads(content)
        return {name: _entry(values, folder) for name, values in sorted(entries.items())}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{_root(folder) / MANIFEST} is damaged; reinstall cab") from error


def _entry(values: Mapping[str, Any], folder: Path | None) -> EmbeddedDataset:
    known = {field.name: values[field.name] for field in fields(EmbeddedDataset)[:-1]}
    typed: dict[str, Any] = {
        "source": Source(**known["source"]),
        "columns": tuple(known["columns"]),
        "notes": tuple(known["notes"]),
        "splits": {name: tuple(ids) for name, ids in known["splits"].items()},
    }
    return EmbeddedDataset(**{**known, **typed}, folder=folder)


@functools.cache
def _checked_table(folder: Path | None, file: str, size: int, sha256: str, remedy: str) -> pa.Table:
    content = _read(folder, file, remedy)
    path = _root(folder) / file
    if len(content) < size:
        raise DataError(f"{path} is truncated ({len(content)} of {size} bytes); {remedy}")
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is not the file that the manifest names; {remedy}")
    return pq.read_table(pa.BufferReader(content))


def _read(folder: Path | None, file: str, remedy: str) -> bytes:
    path = _root(folder) / file
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error


def _root(folder: Path | None) -> Traversable:
    # Not a path of the file system: the package may be imported from a zip archive.
    return resources.files("tasks.data") if folder is None else folder
