"""Where a name leads: through imports and re-exports, to a definition or out of what counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cab.definitions import sources
from cab.definitions.canonical import Reference
from cab.definitions.modules import Module, read_module
from cab.definitions.scopes import Imported
from cab.definitions.sources import find_module

BORDERS = (
    "cab.artifact", "cab.checks", "cab.errors", "cab.registries", "cab.registry", "cab.schema",
    "cab.store", "runners.environment", "runners.gate", "runners.guard", "runners.outcome",
    "runners.report", "runners.rows",
)  # fmt: skip
"""Modules, with what lies below them, that no number depends on: how code is found and checked,
what errors are called, how rows are written down. Their code is not followed."""

Place = tuple[Path, str, str]
"""File, definition, method; a class without its methods and other definitions have no method"""

Target = tuple[Place | Path | str, tuple[str, ...]]
"""A definition, a whole module (its file) or words for what lies outside; and the attributes that
are read from it"""

_DEEPEST = 20
"""Re-exports of re-exports"""


class Names:
    """Resolves names of the modules that are followed, and notes each file that it looks into."""

    def __init__(self, own: Collection[str], folder: Path | None) -> None:
        """See `cab.definitions.closure.Closure`."""
        self.files: dict[str, Path] = {}
        """By dotted name, or by path for modules that have none"""
        self._own = frozenset(own)
        self._folder = folder
        self._dotted: dict[Path, str] = {}

    def find(self, name: str) -> Path | None:
        """The file that a name of `files` leads to now."""
        path = Path(name)
        if path.is_absolute():
            return path
        found = find_module(name, self._own, self._folder)
        return None if found is None else found.resolve()

    def file_of(self, dotted: str) -> Path | None:
        """The file of a module, None where its code is not followed."""
        path = self.find(dotted)
        if path is not None:
            self.files[dotted] = path
            self._dotted.setdefault(path, dotted)
        return path

    def dotted_name(self, path: Path) -> str:
        """The name by which a file was found; empty where it has none."""
        return self._dotted.get(path, "")

    def target(self, path: Path, reference: Reference) -> Target:
        """What a reference in a file leads to."""
        if reference.imported is not None:
            return self._imported(path, reference.imported, reference.attributes)
        return self.resolve(path, reference.name, reference.attributes)

    def resolve(self, path: Path, name: str, rest: tuple[str, ...], depth: int = 0) -> Target:
        """What a name at the top level of a module leads to."""
        module = module_at(path)
        if name in module.definitions:
            return (path, name, ""), rest
        if name in module.imports:
            return self._imported(path, module.imports[name], rest, depth + 1)
        for star in module.stars:
            source = self._locate(path, star)
            if source is not None and depth < _DEEPEST:
                target, left = self.resolve(source, name, rest, depth + 1)
                if isinstance(target, tuple):
                    return target, left
        return name, rest

    def executed_with(self, path: Path) -> Iterator[Path]:
        """Followed modules that are executed when a module is imported."""
        for imported in module_at(path).loaded:
            modules = [imported.module]
            if imported.name and imported.name != "*":
                modules.append(_join(imported.module, imported.name))
            for module in modules:
                if _is_border(self._absolute(path, module, imported.level)):
                    continue
                source = self._locate(path, Imported(module, level=imported.level))
                if source is not None:
                    yield source

    def _imported(
        self, path: Path, imported: Imported, rest: tuple[str, ...], depth: int = 0
    ) -> Target:
        if imported.whole_path:
            return self._within(path, imported.module.split(".")[0], rest, 0, depth)
        names = (imported.name, *rest) if imported.name else rest
        return self._within(path, imported.module, names, imported.level, depth)

    def _within(
        self, path: Path, module: str, names: tuple[str, ...], level: int, depth: int
    ) -> Target:
        """What a chain of names read from a module leads to."""
        dotted = self._absolute(path, module, level)
        if _is_border(dotted) or depth > _DEEPEST:
            return dotted, names
        below = _join(module, names[0]) if names else ""
        nested = below and self._locate(path, Imported(below, level=level))
        source = self._locate(path, Imported(module, level=level))
        if source is None:
            if nested:
                return self._within(path, below, names[1:], level, depth + 1)
            return dotted, names
        if not names:
            return source, ()
        first, rest = names[0], names[1:]
        known = module_at(source)
        if first in known.definitions or first in known.imports:
            return self.resolve(source, first, rest, depth + 1)
        if nested:
            return self._within(path, below, rest, level, depth + 1)
        if known.lazy:
            if first in known.typing_imports:
                return self._imported(source, known.typing_imports[first], rest, depth + 1)
            return source, names
        return self.resolve(source, first, rest, depth + 1)

    def _locate(self, origin: Path, imported: Imported) -> Path | None:
        """The file of an imported module, None where its code is not followed."""
        dotted = self._absolute(origin, imported.module, imported.level)
        if not dotted.startswith("."):
            return self.file_of(dotted)
        folder = origin.parent
        for _ in range(imported.level - 1):
            folder = folder.parent
        path = sources.beside(folder, imported.module)
        if path is not None:
            self.files[str(path)] = path
        return path

    def _absolute(self, origin: Path, module: str, level: int) -> str:
        """The full name of a module; with leading dots where the importing one has none."""
        if not level:
            return module
        parts = self.dotted_name(origin).split(".")
        drop = level - 1 if module_at(origin).is_package else level
        if parts == [""] or drop >= len(parts) + bool(module):
            return "." * level + module
        return _join(".".join(parts[: len(parts) - drop]), module)


_MODULES: dict[Path, tuple[tuple[int, int], Module]] = {}
_UNCHANGED: set[Path] = set()


def module_at(path: Path) -> Module:
    """The parsed file; parsed again where it was changed since.

    Raises:
        SyntaxError, UnicodeDecodeError: it is no Python source.
    """
    if path in _UNCHANGED:
        return _MODULES[path][1]
    state = path.stat()
    stamp = (state.st_mtime_ns, state.st_size)
    if path not in _MODULES or _MODULES[path][0] != stamp:
        _MODULES[path] = (stamp, read_module(path))
    _UNCHANGED.add(path)
    return _MODULES[path][1]


def look_again() -> None:
    """Forget which files are known to be unchanged, and where modules lie."""
    _UNCHANGED.clear()
    find_module.cache_clear()


def _is_border(dotted: str) -> bool:
    return any(dotted == border or dotted.startswith(f"{border}.") for border in BORDERS)


def _join(module: str, name: Sequence[str] | str) -> str:
    return f"{module}.{name}" if module else str(name)
