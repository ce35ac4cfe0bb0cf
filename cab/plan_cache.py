"""What planning has found out before: hashes of code and of data, on this machine.

Hashing a hundred mechanisms takes seconds, loading the data of every task half a minute. Both are
functions of files, so they are kept with the size and time of change of each file that was read,
and found again only while all of them are as they were. The cache may be deleted at any time; where
it cannot be written, planning is only slower.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_VERSION = 1
"""Of the hashing itself: another one finds nothing that an earlier one has left"""
_MOST = 4000
"""Entries of one kind; the oldest go first"""

Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds"""


class PlanCache:
    """Opened for one plan: files are looked at once."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = default_file() if file is None else file
        self._content: dict[str, dict[str, Any]] = _read(self._file)
        self._stamps: dict[str, Stamp | None] = {}
        self._changed = False

    def code(
        self,
        key: str,
        compute: Callable[[], tuple[str, Mapping[str, Path]]],
        find: Callable[[str], Path | None],
    ) -> str:
        """The hash of code that a key stands for.

        Args:
            key: what is hashed, and how.
            compute: gives the hash, and the files that were read by the name they were found by.
            find: gives the file that a name leads to now; a path leads to itself.
        """
        known = self._content["code"].get(key)
        if known is not None and all(
            self._stamp(path) == tuple(stamp) and str(find(name)) == path
            for name, path, stamp in known["files"]
        ):
            return str(known["hash"])
        digest, files = compute()
        listed = [(name, str(path), self._stamp(str(path))) for name, path in files.items()]
        self._put("code", key, {"hash": digest, "files": listed})
        return digest

    def data(self, key: str, files: Iterable[Path], compute: Callable[[], str]) -> str:
        """The hash of data that a key stands for, which is read from some files."""
        stamps = sorted((str(path), self._stamp(str(path))) for path in files)
        content = json.dumps([key, stamps])
        place = hashlib.sha256(content.encode()).hexdigest()
        known = self._content["data"].get(place)
        if known is None:
            known = compute()
            self._put("data", place, known)
        return str(known)

    def save(self) -> None:
        """Keep what is new for the next plan."""
        if not self._changed:
            return
        temporary = self._file.with_name(f".{uuid.uuid4().hex}.tmp")
        # Where nothing can be written the next plan computes it again.
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"version": _VERSION} | self._content))
            temporary.replace(self._file)

    def _put(self, kind: str, key: str, value: Any) -> None:
        entries = self._content[kind]
        entries.pop(key, None)
        entries[key] = value
        while len(entries) > _MOST:
            del entries[next(iter(entries))]
        self._changed = True

    def _stamp(self, path: str) -> Stamp | None:
        if path not in self._stamps:
            try:
                state = os.stat(path)
                self._stamps[path] = (state.st_size, state.st_mtime_ns)
            except OSError:
                self._stamps[path] = None
        return self._stamps[path]


def default_file() -> Path:
    """In the user's cache folder (``CAB_CACHE``, else ``XDG_CACHE_HOME``, else ``~/.cache``)."""
    named = os.environ.get("CAB_CACHE")
    if named:
        return Path(named) / "plan.json"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "cab" / "plan.json"


def _read(file: Path) -> dict[str, dict[str, Any]]:
    empty: dict[str, dict[str, Any]] = {"code": {}, "data": {}}
    try:
        content = json.loads(file.read_text())
        if content.pop("version") != _VERSION:
            return empty
        for entry in content["code"].values():
            assert isinstance(entry["hash"], str)
            assert all(len(listed) == 3 for listed in entry["files"])
        assert all(isinstance(value, str) for value in content["data"].values())
        return {"code": content["code"], "data": content["data"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return empty
