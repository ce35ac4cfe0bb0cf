"""The registries of attentions and tasks.

Every entry, ours or a third party's, comes through the same doors:

* an entry point of an installed package (groups ``cab.attentions`` and ``cab.tasks``),
* ``path/to/file.py:Class`` or ``package.module:Class`` on the command line,
* the decorator alone, in a running Python session.

Listing reads info records from source (`cab.source_info`) and never imports torch; only
`Entry.load` imports the module.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from cab.errors import RegistrationError, UnknownEntryError
from cab.source_info import module_path, read_info

InfoT = TypeVar("InfoT")
ClassT = TypeVar("ClassT", bound=type)

_ID = re.compile(r"[a-z0-9]+([-+][a-z0-9]+)*")


@dataclass(frozen=True)
class Entry(Generic[InfoT]):
    """One registered class: its record, and where its code lies."""

    id: str
    target: str
    """``module:Class`` or ``/absolute/file.py:Class``; resolving it again gives this entry."""
    info: InfoT
    path: Path | None
    """Source file, None for a class that was defined interactively."""


@dataclass(frozen=True)
class BrokenEntry:
    """An entry point whose record cannot be had, with the reason."""

    id: str
    target: str
    reason: str


class Registry(Generic[InfoT]):
    """Entries of one kind, found through entry points, targets and the decorator."""

    def __init__(
        self,
        noun: str,
        group: str,
        decorator: str,
        info_type: type[InfoT],
        base: str,
        infer: Callable[[type], InfoT] | None = None,
    ) -> None:
        self.noun = noun
        self._group = group
        self._decorator = decorator
        self._info_type = info_type
        self._base = base
        self._infer = infer
        self._entries: dict[str, Entry[InfoT]] | None = None
        self._broken: dict[str, BrokenEntry] = {}
        self._classes: dict[str, type] = {}

    def register(self, info: InfoT) -> Callable[[ClassT], ClassT]:
        """Class decorator that gives the class its info record and enters it in the registry."""

        def decorate(cls: ClassT) -> ClassT:
            cls.info = info  # type: ignore[attr-defined]  # declared by the base class
            self._classes[self._key(cls)] = cls
            return cls

        return decorate

    def entries(self) -> dict[str, Entry[InfoT]]:
        """All entries by id: installed entry points, then classes registered in this process.

        A class that was loaded from a file belongs to the command that named it, not to the list.
        """
        if self._entries is None:
            self._entries = self._discover()
        merged = dict(self._entries)
        known = {entry.target for entry in merged.values()}
        for target, cls in self._classes.items():
            if target in known or cls.__module__.startswith(_FILE_MODULE):
                continue
            entry = self._of_class(cls, target)
            merged.setdefault(entry.id, entry)
        return dict(sorted(merged.items()))

    def broken(self) -> list[BrokenEntry]:
        """Entry points that could not be read, for `cab doctor` and the listings."""
        self.entries()
        return list(self._broken.values())

    def infos(self) -> list[InfoT]:
        """Info records of all entries, by id."""
        return [entry.info for entry in self.entries().values()]

    def resolve(self, name: str) -> Entry[InfoT]:
        """The entry of an id, of ``file.py:Class`` or of ``module:Class``.

        Raises:
            UnknownEntryError: no entry has that id; the nearest ids are suggested.
            RegistrationError: the target does not import, or is not of this registry's kind.
        """
        entries = self.entries()
        if name in entries:
            return entries[name]
        if name in self._broken:
            raise RegistrationError(f"{self.noun} {name!r} is broken: {self._broken[name].reason}")
        for entry in entries.values():
            if entry.target == name:
                return entry
        if ":" not in name:
            raise UnknownEntryError(self.noun, name, entries)
        target, cls = self._import_target(name)
        entry = self._of_class(cls, target)
        clash = entries.get(entry.id)
        if clash is not None and clash.target != target:
            raise RegistrationError(
                f"{name} calls itself {entry.id!r}, an id that {clash.target} has already; "
                "give it another id in its AttentionInfo"
            )
        return entry

    def load(self, entry: Entry[InfoT]) -> type[Any]:
        """Import the class of an entry.

        Raises:
            RegistrationError: it does not import, or is not of this registry's kind.
        """
        return self._import_target(entry.target)[1]

    def _discover(self) -> dict[str, Entry[InfoT]]:
        found: dict[str, Entry[InfoT]] = {}
        for point in entry_points(group=self._group):
            if point.name in found:
                if found[point.name].target != point.value:
                    self._broken[f"{point.name} ({point.value})"] = BrokenEntry(
                        point.name,
                        point.value,
                        f"the id is taken by {found[point.name].target}",
                    )
                continue
            try:
                found[point.name] = self._of_target(point.name, point.value)
            except RegistrationError as error:
                self._broken[point.name] = BrokenEntry(point.name, point.value, str(error))
        return found

    def _of_target(self, name: str, target: str) -> Entry[InfoT]:
        module, _, class_name = target.partition(":")
        path = module_path(module)
        info = read_info(path, class_name, self._decorator) if path else None
        if not isinstance(info, self._info_type):
            entry = self._of_class(self._import_target(target)[1], target)
        else:
            entry = Entry(self._checked_id(info, target), target, info, path)
        if entry.id != name:
            raise RegistrationError(
                f"entry point {name!r} leads to {target}, which calls itself {entry.id!r}"
            )
        return entry

    def _of_class(self, cls: type, target: str) -> Entry[InfoT]:
        info = cls.__dict__.get("info")
        if not isinstance(info, self._info_type):
            if self._infer is None:
                raise RegistrationError(
                    f"{target} has no info record; decorate it with "
                    f"@{self._decorator}({self._info_type.__name__}(...))"
                )
            info = self._infer(cls)
            cls.info = info  # type: ignore[attr-defined]  # declared by the base class
        origin = getattr(sys.modules.get(cls.__module__), "__file__", None)
        return Entry(self._checked_id(info, target), target, info, Path(origin) if origin else None)

    def _checked_id(self, info: InfoT, target: str) -> str:
        name = str(getattr(info, "id", ""))
        if not _ID.fullmatch(name):
            raise RegistrationError(
                f"{target}: id {name!r} is not kebab-case (a-z, 0-9, dashes; + before a modifier)"
            )
        return name

    def _import_target(self, target: str) -> tuple[str, type]:
        """Import ``module:Class`` or ``file.py:Class``; the canonical target and the class."""
        location, _, class_name = target.rpartition(":")
        if not location or not class_name.isidentifier():
            raise RegistrationError(
                f"{target!r} is neither an id nor path/to/file.py:Class nor package.module:Class"
            )
        try:
            if location.endswith(".py"):
                path = Path(location).expanduser().resolve()
                module, canonical = _import_file(path), f"{path}:{class_name}"
            else:
                module, canonical = importlib.import_module(location), target
        except RegistrationError:
            raise
        except BaseException as error:  # a user's file may raise anything, SystemExit included
            if isinstance(error, KeyboardInterrupt):
                raise
            raise RegistrationError(
                f"{location} does not import: {type(error).__name__}: {_one_line(error)}"
            ) from error
        cls = getattr(module, class_name, None)
        if cls is None:
            raise RegistrationError(
                f"{location} has no class {class_name}{_suggest(module, self._class_base())}"
            )
        base = self._class_base()
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise RegistrationError(
                f"{target} is not {_article(self.noun)}: it must be a subclass of "
                f"{self._base.replace(':', '.')}"
            )
        self._classes[canonical] = cls
        return canonical, cls

    def _class_base(self) -> type:
        module, _, name = self._base.partition(":")
        return getattr(importlib.import_module(module), name)

    @staticmethod
    def _key(cls: type) -> str:
        origin = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if cls.__module__.startswith(_FILE_MODULE) and origin:
            return f"{origin}:{cls.__qualname__}"
        return f"{cls.__module__}:{cls.__qualname__}"


_FILE_MODULE = "cab_file_"


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise RegistrationError(f"{path} does not exist")
    # A file that was edited since it was last imported is another module.
    content = f"{path}\0".encode() + path.read_bytes()
    name = f"{_FILE_MODULE}{path.stem}_{hashlib.sha256(content).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no message"


def _suggest(module: Any, base: type) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    ]
    return f"; it has {', '.join(sorted(names))}" if names else ""


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
