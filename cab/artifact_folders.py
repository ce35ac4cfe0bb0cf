"""The artifacts of a results folder: one folder for each cell, in ``artifacts`` beside the rows.

Folders of earlier versions have them inside, in ``_artifacts`` or ``artifacts``. There they are
still read; `move_old` brings them to today's place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

from cab.artifact import Artifact
from cab.beside import Beside
from cab.errors import StoreError
from cab.visible import visible

_FOLDER = "artifacts"
_INDEX = "index.json"


class ArtifactFolders:
    """What the cells of one results folder have made."""

    def __init__(self, root: Path, beside: Beside) -> None:
        """Read and write those of a results folder, given with the folder beside it."""
        self._beside = beside
        self._oldest = root / _FOLDER

    def attach(self, cell: str, artifacts: Sequence[Artifact]) -> None:
        """Keep a cell's artifacts, in place of earlier ones.

        Raises:
            StoreError: a file cannot be written.
        """
        if not _is_name(cell):
            raise StoreError(f"no cell has the key {visible(cell)!r}")
        folder = self._beside.folder / _FOLDER / cell
        index = [{"file": a.file, "caption": a.caption} for a in artifacts]
        try:
            folder = self._beside.writing(_FOLDER) / cell
            folder.mkdir(exist_ok=True)
            for artifact in artifacts:
                _write(folder / artifact.file, artifact.content)
            # Last: a reader takes what the index names, so it never sees half of a set.
            _write(folder / _INDEX, json.dumps(index, indent=1, ensure_ascii=False).encode())
        except OSError as error:
            raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error

    def of(self, cell: str) -> list[Artifact]:
        """What a cell has made; empty where it has made nothing.

        Raises:
            StoreError: files are missing or not what the index says.
        """
        folder = self._folder(cell)
        if folder is None:
            return []
        try:
            index = json.loads((folder / _INDEX).read_bytes())
            found = []
            for entry in index:
                name, _, suffix = entry["file"].partition(".")
                content = (folder / f"{name}.{suffix}").read_bytes()
                found.append(Artifact(name, suffix, visible(entry["caption"]), content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"the artifacts in {folder} are damaged ({error}); remove that folder"
            ) from error
        return found

    def has(self, cell: str) -> bool:
        """Whether a cell has made something, without reading it."""
        return self._folder(cell) is not None

    def files(self, cells: Collection[str]) -> list[Path]:
        """The files of some cells."""
        folders = (folder for cell in cells if (folder := self._folder(cell)))
        return [path for folder in folders for path in folder.glob("*") if path.is_file()]

    def keep_only(self, cells: Collection[str]) -> None:
        """Remove the artifacts of all other cells."""
        for place in self._places():
            for folder in place.glob("*"):
                if folder.name not in cells:
                    shutil.rmtree(folder)

    def move_old(self) -> None:
        """Bring what an earlier version has left inside the results folder to today's place; what
        cannot be moved is read where it is, and of a cell that has both the new one counts.
        """
        for old in self._places():
            self._beside.take_in(old, _FOLDER, _is_whole)

    def _places(self) -> list[Path]:
        """Where artifacts may lie, what counts first."""
        return [*self._beside.reading(_FOLDER), self._oldest]

    def _folder(self, cell: str) -> Path | None:
        if not _is_name(cell):
            return None
        folders = (place / cell for place in self._places())
        return next((folder for folder in folders if _is_whole(folder)), None)


def _is_name(cell: str) -> bool:
    """Whether a cell's key, which a file may have made up, names a folder and no way out of it."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", cell) is not None


def _is_whole(folder: Path) -> bool:
    return os.path.exists(folder / _INDEX)


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    temporary.rename(target)
