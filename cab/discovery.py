"""Find every registered class below a package from source; nothing is imported.

An entry point that names a package instead of a class stands for all of them: a new file is an
entry as soon as it lies there.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cab.source_info import module_path, package_folders, registered


@dataclass(frozen=True)
class Found:
    """A class that carries the decorator."""

    target: str
    """``module:Class``"""
    path: Path
    info: Any | None
    """Its record; None where only the import tells"""


@dataclass(frozen=True)
class Unreadable:
    """A module that seems to register something but is no Python source."""

    module: str
    path: Path
    reason: str


def scan(package: str, decorator: str) -> list[Found | Unreadable]:
    """What a package registers, in the order of its modules' names; empty where it does not exist.

    Args:
        package: dotted name of a package, whose subfolders are searched too, or of one module.
        decorator: name of the class decorator (``register_attention``).
    """
    found: list[Found | Unreadable] = []
    with _no_collection():
        for module, path in sorted(_modules(package)):
            try:
                found += [
                    Found(f"{module}:{entry.class_name}", path, entry.info)
                    for entry in registered(path, decorator)
                ]
            except (SyntaxError, ValueError, OSError, RecursionError) as error:
                found.append(Unreadable(module, path, _reason(error)))
    return found


def _modules(package: str) -> Iterator[tuple[str, Path]]:
    """Dotted names and files of a module, or of everything below a package."""
    folders = package_folders(package)
    if not folders:
        path = module_path(package)
        if path is not None:
            yield package, path
    for folder in folders:
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if all(part.isidentifier() for part in parts):  # what can be imported
                yield ".".join((package, *parts)), path


@contextmanager
def _no_collection() -> Iterator[None]:
    """Syntax trees are many objects and no garbage: the collector would go over them in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reason(error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    return f"{type(error).__name__}: {error}"
