"""The artifacts of a results folder: one folder for each cell, below ``_artifacts``.

The name begins with an underscore because readers of Parquet folders (pandas, Arrow, Spark) leave
out what does. Folders of earlier versions have ``artifacts``, which is still read; `move_old` gives
it today's name.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path

from cab.artifact import Artifact
from cab.errors import StoreError
from cab.visible import visible

FOLDER, OLD_FOLDER = "_artifacts", "artifacts"
_INDEX = "index.json"


class ArtifactFolders:
    """What the cells of one results folder have made."""

    def __init__(self, root: Path) -> None:
        """Read and write below a results folder."""
        self._root = root

    def attach(self, cell: str, artifacts: Sequence[Artifact]) -> None:
        """Keep a cell's artifacts, in place of earlier ones.

        Raises:
            StoreError: a file cannot be written.
        """
        folder = self._root / FOLDER / cell
        index = [{"file": a.file, "caption": a.caption} for a in artifacts]
        try:
            folder.mkdir(parents=True, exist_ok=True)
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
        for name in (FOLDER, OLD_FOLDER):
            for folder in (self._root / name).glob("*"):
                if folder.name not in cells:
                    shutil.rmtree(folder)

    def move_old(self) -> None:
        """Give a folder of an earlier version today's name; what cannot be moved is read where it
        is, and of a cell that has both the new one counts.
        """
        old, new = self._root / OLD_FOLDER, self._root / FOLDER
        if not old.is_dir():
            return
        # What cannot be moved, in a folder that is read-only, is read where it is.
        with contextlib.suppress(OSError):
            new.mkdir(exist_ok=True)
            for folder in old.iterdir():
                if (new / folder.name / _INDEX).exists():
                    shutil.rmtree(folder)
                else:
                    folder.rename(new / folder.name)
            old.rmdir()

    def _folder(self, cell: str) -> Path | None:
        folders = (self._root / name / cell for name in (FOLDER, OLD_FOLDER))
        return next((folder for folder in folders if (folder / _INDEX).exists()), None)


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content)
    temporary.rename(target)
