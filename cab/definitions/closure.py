"""Everything that some definitions use, and its digest.

References are followed name by name, across modules and through re-exports. Of a class that is
reached, methods count that are called by a name that reached code mentions, that Python or torch
calls by itself, or that the caller of the class is known to use; so a method that nothing reached
uses - one that draws pictures, say - changes nothing. Where a use cannot be followed, everything
counts that it could mean: a module handed around as an object, its whole content; a computed
import, the whole package; attributes with computed names, all methods of the module's classes, in
a user's code those of all their classes.

The digest does not contain paths, names of modules or of top-level definitions: moving, renaming
or splitting them changes nothing. A reference stands for the code it leads to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cab.definitions import sources
from cab.definitions.canonical import Piece, Reference
from cab.definitions.modules import Definition, Module
from cab.definitions.names import Names, Place, module_at

_HOOKS = frozenset(
    {
        "forward", "backward", "setup_context", "jvp", "vjp", "vmap", "train", "eval",
        "reset_parameters", "get_extra_state", "set_extra_state", "_apply", "_save_to_state_dict",
        "_load_from_state_dict", "register_forward_hook",
    }
)  # fmt: skip
"""Methods that torch calls by itself"""
_KNOWN_BASES = frozenset(
    {
        "object", "torch.nn.Module", "torch.autograd.Function", "torch.autograd.function.Function",
        "abc.ABC", "typing.Protocol", "typing.Generic", "typing.NamedTuple", "Exception",
        "RuntimeError", "ValueError", "enum.Enum", "enum.StrEnum", "enum.IntEnum", "str",
    }
)  # fmt: skip
"""Bases outside the followed code that call no other methods than `_HOOKS` by name"""
_COMPUTED = frozenset({"globals", "eval", "exec", "locals", "vars", "sys.modules"})
_IMPORTERS = frozenset(
    {
        "__import__", "importlib.import_module", "importlib.reload", "runpy.run_path",
        "runpy.run_module", "importlib.util.spec_from_file_location", "pkgutil.iter_modules",
        "pkgutil.walk_packages",
    }
)  # fmt: skip
_ROUNDS = 4
"""How deep a reference is told apart by what it leads to; what is reached counts at any depth."""


@dataclass
class Unit:
    """Code that was reached: text, and for each reference a place or what lies outside."""

    texts: Sequence[str]
    targets: list[Place | str]
    label: str = ""
    """Name of a method"""


@dataclass
class Reached:
    """A closure."""

    units: dict[Place, Unit] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    """By dotted name, or path for modules that have none: every file that was read"""
    data: dict[str, Path] = field(default_factory=dict)
    """Files that a user's code names"""
    mentions: set[str] = field(default_factory=set)
    """Names of attributes that are read, and strings that could be one"""

    def digest(self) -> str:
        """Hash (16 hexadecimal digits) of the code, whatever it is called and wherever it lies."""
        known = {place: _sha(unit.label, *unit.texts) for place, unit in self.units.items()}
        for _ in range(_ROUNDS):
            known = {
                place: _sha(
                    unit.label,
                    *unit.texts,
                    *(t if isinstance(t, str) else known.get(t, "") for t in unit.targets),
                )
                for place, unit in self.units.items()
            }
        contents = [
            _sha(name, hashlib.sha256(path.read_bytes()).hexdigest())
            for name, path in self.data.items()
        ]
        return _sha(*sorted(known.values()), *sorted(contents))[:16]

    def names(self) -> set[str]:
        """Names of the definitions and methods that were reached (``Class.method``)."""
        return {f"{n}.{m}" if m else n for _, n, m in self.units}


class Closure:
    """Follows references from some roots."""

    def __init__(self, own: Collection[str] = (), folder: Path | None = None) -> None:
        """Choose what is followed.

        Args:
            own: top-level packages that are followed wherever they lie.
            folder: of a file that is no module: where its neighbours lie.
        """
        self.names = Names(own, folder)
        self.reached = Reached(files=self.names.files)
        self._live: dict[Place, set[str]] = {}
        """Classes with the methods that are still out"""
        self._pending: list[Place] = []
        self._whole: set[Path] = set()
        self._executed: set[Path] = set()
        self._any_attribute = False
        """Whether a user's code reads attributes with computed names, of any class of theirs"""

    def reach_module(self, dotted: str) -> bool:
        """Add everything in a module; says whether it is one whose code is followed."""
        path = self.names.file_of(dotted)
        if path is None:
            return False
        self._take_whole(path)
        self._settle()
        return True

    def reach(self, place: Path | str, name: str, used: Iterable[str] = ()) -> None:
        """Add a definition and everything that it uses.

        Args:
            place: dotted module, or path of a file.
            name: the definition.
            used: methods that callers use.
        """
        path = self.names.file_of(place) if isinstance(place, str) else place.resolve()
        if path is None:
            return
        if isinstance(place, Path):
            self.reached.files[str(path)] = path
        self.reached.mentions |= set(used)
        found = self.names.resolve(path, name, ())
        if isinstance(found[0], tuple):
            self._add(found[0])
        self._settle()

    # Following

    def _settle(self) -> None:
        while True:
            while self._pending:
                self._take(self._pending.pop())
            for place, left in self._live.items():
                module = module_at(place[0])
                for method in list(left):
                    if self._counts(method, module, place):
                        left.discard(method)
                        self._pending.append((place[0], place[1], method))
            if not self._pending and not self._execute():
                return

    def _counts(self, method: str, module: Module, place: Place) -> bool:
        if method in self.reached.mentions or method in _HOOKS or method.startswith("__"):
            return True
        if module.dynamic_attributes or (self._any_attribute and not self._is_suite(place[0])):
            return True
        return self._has_unknown_base(place, set())

    def _has_unknown_base(self, place: Place, seen: set[Place]) -> bool:
        if place in seen:
            return False
        seen.add(place)
        definition = module_at(place[0]).definitions[place[1]]
        for reference in definition.bases.references:
            target, rest = self.names.target(place[0], reference)
            if isinstance(target, tuple):
                if module_at(target[0]).definitions[target[1]].is_class and self._has_unknown_base(
                    target, seen
                ):
                    return True
            elif isinstance(target, Path) or ".".join((target, *rest)) not in _KNOWN_BASES:
                return True
        return False

    def _add(self, place: Place) -> None:
        if place not in self.reached.units:
            self._pending.append(place)

    def _take(self, place: Place) -> None:
        if place in self.reached.units:
            return
        path, name, method = place
        definition = module_at(path).definitions[name]
        piece = definition.methods[method] if method else definition.piece
        self._put(place, piece, method)
        if definition.is_class and not method:
            self._live[place] = set(definition.methods)

    def _put(self, place: Place, piece: Piece, label: str = "") -> None:
        unit = Unit(piece.texts, [], label)
        self.reached.units[place] = unit
        self.reached.mentions |= piece.mentions
        if not self._is_suite(place[0]):
            self.reached.mentions |= {text for text in piece.strings if text.isidentifier()}
            self._any_attribute |= piece.dynamic_attributes or piece.reads_dictionaries
        for reference in piece.references:
            unit.targets.append(self._follow(place[0], reference))
        self._note_data(place[0], piece.strings)

    def _follow(self, path: Path, reference: Reference) -> Place | str:
        target, rest = self.names.target(path, reference)
        self.reached.mentions |= set(rest)
        if isinstance(target, tuple):
            self._add(target)
            # A reference carries the attributes that are read from what it leads to.
            return self._with_attributes(target, rest)
        if isinstance(target, Path):
            self._take_whole(target)
            return ".".join(("module", *rest))
        words = ".".join((target, *rest))
        if words in _COMPUTED:
            self._take_whole(path)
        if words in _IMPORTERS:
            for neighbour in sources.neighbours(path, self._is_in_package(path)):
                self._take_whole(neighbour)
        return words

    def _with_attributes(self, target: Place, rest: tuple[str, ...]) -> Place | str:
        if not rest:
            return target
        link: Place = (*target[:2], f"{target[2]}." + ".".join(rest))
        if link not in self.reached.units:
            self.reached.units[link] = Unit(["", "." + ".".join(rest)], [target], "link")
        return link

    def _is_in_package(self, path: Path) -> bool:
        named = bool(self.names.dotted_name(path))
        return named and (path.parent / "__init__.py").is_file()

    def _is_suite(self, path: Path) -> bool:
        return self.names.dotted_name(path).split(".")[0] in sources.SUITE

    def _take_whole(self, path: Path) -> None:
        if path in self._whole:
            return
        self._whole.add(path)
        try:
            module = module_at(path)
        except (SyntaxError, UnicodeDecodeError):
            return  # a neighbour that cannot be imported either
        self.reached.files.setdefault(str(path), path)
        for name, definition in module.definitions.items():
            self._add((path, name, ""))
            for method in definition.methods:
                self._add((path, name, method))

    def _execute(self) -> bool:
        """Add what importing the reached modules does; says whether there was something new."""
        todo = {place[0] for place in self.reached.units} - self._executed
        seen = set(self._executed)
        pending = list(todo)
        while pending:
            path = pending.pop()
            if path in seen:
                continue
            seen.add(path)
            module = module_at(path)
            if any(text.strip(";") for text in module.effects.texts) or module.effects.references:
                self._put((path, "", "effects"), module.effects)
            for name, definition in module.definitions.items():
                if self._registers(path, definition):
                    self._add((path, name, ""))
            pending += self.names.executed_with(path)
        self._executed = seen
        return bool(self._pending)

    def _registers(self, path: Path, definition: Definition) -> bool:
        """Whether defining it changes something elsewhere: a decorator that is an object of the
        followed code, or a base class that learns of its subclasses.
        """
        for reference in definition.decorators.references:
            target, rest = self.names.target(path, reference)
            if isinstance(target, tuple):
                found = module_at(target[0]).definitions[target[1]]
                # `@TABLE.register("relu")`, not `@cached`
                if rest and not found.is_class:
                    return True
        if not definition.is_class:
            return False
        return self._learns_of_subclasses(path, definition, 0)

    def _learns_of_subclasses(self, path: Path, definition: Definition, depth: int) -> bool:
        for reference in definition.bases.references:
            target, _ = self.names.target(path, reference)
            if isinstance(target, tuple) and depth < 20:
                base = module_at(target[0]).definitions[target[1]]
                # Ours change the subclass alone.
                theirs = base.subclass_hook and not self._is_suite(target[0])
                if theirs or self._learns_of_subclasses(target[0], base, depth + 1):
                    return True
        return False

    def _note_data(self, path: Path, strings: Collection[str]) -> None:
        """Files beside a user's code that it names: a table, a kernel's source."""
        if self._is_suite(path):
            return
        for text in strings:
            if "." not in text or "\0" in text or "\n" in text or text.endswith(".py"):
                continue
            file = path.parent / text
            try:
                if file.is_file():
                    self.reached.data[text] = file.resolve()
            except (OSError, ValueError):  # no name of a file
                continue


def _sha(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
