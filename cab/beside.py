"""What a results folder keeps besides its rows lies beside it: ``results/runs.files``.

A folder of Parquet files is read by tools that take everything below it. pandas and Arrow pass over
names that begin with ``_`` or ``.``, but Polars refuses a folder in which any file at any depth has
another suffix, and it and DuckDB read hidden Parquet files as well. So in the folder itself there
is nothing but rows, and samples, drawings, merged copies and files that are being written lie in a
folder beside it, named after it; the two are moved together.

Where nothing can be written beside it - the folder is the root of a volume, its parent is not the
user's - they lie inside it, with an underscore. There they are read in any case, which covers the
folders of earlier versions.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

SUFFIX = ".files"
"""Of the folder beside a results folder"""


class Beside:
    """The folder beside one results folder."""

    def __init__(self, root: Path) -> None:
        """Look beside a results folder; nothing is made before something is written."""
        self._root = root
        self._usable: bool | None = None

    @property
    def folder(self) -> Path:
        """The folder beside it; beside what it points to where it is a link."""
        root = self._root.resolve()
        return root.parent / f"{root.name}{SUFFIX}"

    def usable(self) -> bool:
        """Whether it can be written and lies on the same disk; both folders are made.

        A volume that is mounted at the results folder is kept when what lies beside it is not, and
        a file that is complete cannot be moved from one disk to another in one step.
        """
        if self._usable is None:
            self._usable = self._tried()
        return self._usable

    def note(self) -> str | None:
        """What to say where it cannot be used."""
        if self.usable():
            return None
        return (
            f"nothing can be kept in {self.folder}: samples and plots lie inside {self._root}; "
            "Polars and others that look into every folder need its *.parquet"
        )

    def writing(self, name: str) -> Path:
        """The folder to write to for some purpose; made where it does not exist.

        Raises:
            OSError: it cannot be made.
        """
        folder = self.folder / name if self.usable() else self._inside(name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def reading(self, name: str) -> list[Path]:
        """The folders in which something for this purpose lies; what the first has counts."""
        return [p for p in (self.folder / name, self._inside(name)) if os.path.isdir(p)]

    def temporary(self, name: str) -> Path:
        """Where a file is written that gets its place in the results folder once it is whole.

        Raises:
            OSError: its folder cannot be made.
        """
        folder = self._root
        if self.usable():
            folder = self.folder
            folder.mkdir(exist_ok=True)
        return folder / f".{name}.tmp"

    def temporaries(self) -> list[Path]:
        """Files that are being written, or were when their writer died."""
        places = [place for place in (self.folder, self._root) if os.path.isdir(place)]
        return [path for place in places for path in place.glob(".*.tmp")]

    def take_in(self, old: Path, name: str, counts: Callable[[Path], bool]) -> None:
        """Move all that lies in a folder inside the results folder to where it is written today.

        What cannot be moved stays where it is.

        Args:
            old: the folder, which need not exist.
            name: the purpose.
            counts: of what is there already under the same name, whether it stays; else it is
                replaced.
        """
        if not old.is_dir() or old.is_symlink():
            return
        with contextlib.suppress(OSError):
            new = self.writing(name)
            if os.path.samefile(new, old):
                return
            for path in old.iterdir():
                with contextlib.suppress(OSError):
                    _move(path, new / path.name, counts)
            old.rmdir()

    def _inside(self, name: str) -> Path:
        return self._root / f"_{name}"

    def _tried(self) -> bool:
        name = f".{uuid.uuid4().hex}.tmp"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(exist_ok=True)
            (self.folder / name).touch()
            (self.folder / name).rename(self._root / name)
            (self._root / name).unlink()
        except OSError:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()  # where nothing is in it
            return False
        return True


def _move(path: Path, target: Path, counts: Callable[[Path], bool]) -> None:
    if os.path.lexists(target):
        if counts(target):
            _remove(path)
            return
        _remove(target)
    path.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
