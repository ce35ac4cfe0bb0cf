"""Classes in files near the current folder: what someone may have meant who named no such id.

Everything is read from source, and within bounds: no file is imported, and only the current folder
and the folders directly in it are looked into.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cab.errors import CabError, RegistrationError, UnknownEntryError
from cab.own_code import PACKAGES, ROOT
from cab.source_info import class_id, decorations, read_info

_MOST_LISTED = 1000
"""Files and folders of one folder that are looked at"""
_MOST_FOLDERS = 50
_MOST_FILES = 500
"""Source files that are read in all"""
_LARGEST_FILE = 200_000
"""Bytes"""
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Sought:
    """What makes a class look like an entry of a registry, in source."""

    decorator: str
    """``register_attention``"""
    base: str
    """Name of the base class, ``Attention``: names that end like it are taken for derived ones"""
    package: str
    """Where entries to derive from lie, ``attentions``"""


def unknown_entry(noun: str, name: str, known: Iterable[str], sought: Sequence[Sought]) -> CabError:
    """The error of a name that is no id and names no class: what may have been meant.

    Args:
        noun: what was asked for, ``attention``.
        name: as it was given.
        known: ids that there are.
        sought: what would have been one.
    """
    if name.endswith(".py"):
        return RegistrationError(_offered(Path(name).expanduser(), name, sought))
    meant = [target for kind in sought for target in near(name, kind)]
    return UnknownEntryError(noun, name, known, dict.fromkeys(meant))


def _offered(path: Path, name: str, sought: Sequence[Sought]) -> str:
    """What a file that was named without a class has."""
    if not path.is_file():
        return f"{name} does not exist"
    try:
        entries = [cls for kind in sought for cls in entry_classes(path, kind)]
        classes = list(dict.fromkeys(entries)) or _classes(path)
    except (SyntaxError, ValueError, OSError) as error:
        return f"{name} cannot be read: {type(error).__name__}: {error}"
    if not classes:
        return f"{name} has no class; write one, and name it as {name}:Class"
    return f"{name} has {', '.join(classes)}; name one as {name}:{classes[0]}"


def entry_classes(path: Path, sought: Sought) -> list[str]:
    """Names of the classes in a source file that look like entries.

    A class does if it carries the decorator, or is derived in the file from the base class or from
    something out of the suite's package. Names with an underscore in front are left out.

    Raises:
        OSError: the file cannot be read.
        SyntaxError, ValueError: it is no Python source.
    """
    body = ast.parse(path.read_bytes()).body
    kin = {
        alias.asname or alias.name
        for statement in body
        if isinstance(statement, ast.ImportFrom)
        and (statement.module or "").split(".")[0] == sought.package
        for alias in statement.names
    }
    entries = []
    for statement in body:
        if not isinstance(statement, ast.ClassDef):
            continue
        bases = [ast.unparse(base).rpartition(".")[2] for base in statement.bases]
        derived = any(base in kin or base.endswith(sought.base) for base in bases)
        if derived or any(decorations(statement, sought.decorator)):
            kin.add(statement.name)
            entries.append(statement.name)
    return [name for name in entries if not name.startswith("_")]


def _classes(path: Path) -> list[str]:
    return _CLASS.findall(path.read_text(encoding="utf-8"))


def near(name: str, sought: Sought) -> list[str]:
    """Targets (``./mine.py:Mine``) near the current folder that an unknown id may stand for: their
    record's id, their class or their file has that name.
    """
    wanted = _plain(name)
    here = Path.cwd()
    found: list[str] = []
    for path in _files(here) if wanted else ():
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        of_file = _plain(path.stem) == wanted
        # Parsing is for files that name it: there may be hundreds of others.
        words = {
            *map(_plain, _CLASS.findall(text)),
            *map(_plain, re.findall(r"id=\W(.+?)\W,", text)),
        }
        if not (of_file or wanted in words):
            continue
        try:
            classes = entry_classes(path, sought)
        except (SyntaxError, ValueError):
            continue
        for cls in classes:
            info: Any = read_info(path, cls, sought.decorator)
            names = {cls, class_id(cls), str(getattr(info, "id", cls))}
            if of_file or wanted in map(_plain, names):
                found.append(f"./{path.relative_to(here)}:{cls}")
    return found


def _files(here: Path) -> list[Path]:
    """Source files of a folder and of those directly in it."""
    own = {ROOT / package for package in (*PACKAGES, "cab")}
    folders, files = _listed(here)
    for folder in folders[:_MOST_FOLDERS]:
        environment = (folder / "pyvenv.cfg").is_file()
        if not environment and folder.resolve() not in own:
            files += _listed(folder)[1]
    return files[:_MOST_FILES]


def _listed(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and small source files in a folder, hidden ones left out."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, _MOST_LISTED):
                if entry.name.startswith((".", "__")):
                    continue
                if entry.is_dir():
                    folders.append(folder / entry.name)
                elif entry.name.endswith(".py") and entry.stat().st_size <= _LARGEST_FILE:
                    files.append(folder / entry.name)
    except OSError:  # a folder that may not be read, a file that has just gone
        pass
    return sorted(folders), sorted(files)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()
