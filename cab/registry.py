"""The registries of attentions and tasks.

Every entry, ours or a third party's, comes through the same doors:

* an entry point of an installed package (groups ``cab.attentions`` and ``cab.tasks``): it names a
  class, or a package that stands for every decorated class below it,
* ``path/to/file.py:Class`` or ``package.module:Class`` on the command line,
* the decorator alone, in a running Python session.

Listing reads info records from source (`cab.source_info`) and never imports torch; only
`Entry.load` imports the module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from cab.discovery import Found, Unreadable, scan
from cab.errors import RegistrationError
from cab.nearby import Sought, unknown_entry
from cab.source_info import class_id, module_path, package_folders, read_info
from cab.targets import class_target, import_target, is_of_a_file, source_file

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


class OfEntry(Generic[InfoT]):
    """What stands for an entry, with more beside it: says of it what the entry says."""

    entry: Entry[InfoT]

    @property
    def id(self) -> str:
        """Of the entry."""
        return self.entry.id

    @property
    def target(self) -> str:
        """Where its class lies: ``module:Class`` or ``/path/file.py:Class``."""
        return self.entry.target

    @property
    def info(self) -> InfoT:
        """Its record."""
        return self.entry.info


@dataclass(frozen=True)
class BrokenEntry:
    """Something that an entry point leads to and that is no entry, with the reason."""

    id: str
    """As far as it is known: else the name of the entry point, or where the class lies"""
    target: str
    reason: str
    point: str = ""
    """Name of the entry point that leads to it"""
    package: str = ""
    """Installed package that declares the entry point"""
    remedy: str = ""
    """What to do about it"""

    def answers_to(self, name: str) -> bool:
        """Whether someone who asks for ``name`` may mean this."""
        module, _, class_name = self.target.partition(":")
        words = {self.id, self.target, module, module.rpartition(".")[2].replace("_", "-")}
        return name in words | ({class_id(class_name)} if class_name else set())


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
        adapt: Callable[[Callable[..., Any], str], type] | None = None,
    ) -> None:
        self.noun = noun
        self.group = group
        self._decorator = decorator
        self._info_type = info_type
        self._base = base
        self._infer = infer
        self._adapt = adapt
        self._entries: dict[str, Entry[InfoT]] | None = None
        self._broken: list[BrokenEntry] = []
        self._classes: dict[str, type] = {}

    def register(self, info: InfoT) -> Callable[[ClassT], ClassT]:
        """Class decorator that gives the class its info record and enters it in the registry."""

        def decorate(cls: ClassT) -> ClassT:
            cls.info = info  # type: ignore[attr-defined]  # declared by the base class
            self._classes[class_target(cls)] = cls
            return cls

        return decorate

    def entries(self) -> dict[str, Entry[InfoT]]:
        """All entries by id: installed entry points, then classes registered in this process.

        A class that was loaded from a file belongs to the command that named it, not to the list.
        """
        if self._entries is None:
            self._entries, self._broken = self._discover()
        merged = dict(self._entries)
        known = {entry.target for entry in merged.values()} | {b.target for b in self._broken}
        for target, cls in self._classes.items():
            if target in known or is_of_a_file(cls):
                continue
            entry = self._of_class(cls, target)
            merged.setdefault(entry.id, entry)
        return dict(sorted(merged.items()))

    def broken(self) -> list[BrokenEntry]:
        """What entry points lead to and cannot be used, for `cab doctor` and the listings."""
        self.entries()
        return list(self._broken)

    def infos(self) -> list[InfoT]:
        """Info records of all entries, by id."""
        return [entry.info for entry in self.entries().values()]

    def resolve(self, name: str) -> Entry[InfoT]:
        """The entry of an id, of ``file.py:Class`` or of ``module:Class``.

        Raises:
            UnknownEntryError: no entry has that id; the nearest ids are suggested, and classes of
                that name in files nearby.
            RegistrationError: the target does not import, or is not of this registry's kind; or a
                file is named without a class.
        """
        entries = self.entries()
        if name in entries:
            return entries[name]
        for entry in entries.values():
            if entry.target == name:
                return entry
        for broken in self._broken:
            if broken.answers_to(name):
                told = f"{self.noun} {name!r} is broken: {broken.reason}; {broken.remedy}"
                raise RegistrationError(told)
        if ":" not in name:
            raise unknown_entry(self.noun, name, entries, [self.sought])
        target, cls = self._import(name)
        entry = self._of_class(cls, target)
        clash = entries.get(entry.id)
        if clash is not None and clash.target != target:
            raise RegistrationError(
                f"{name} calls itself {entry.id!r}, an id that {clash.target} has already; "
                f"give it another id in its {self._info_type.__name__}"
            )
        return entry

    def load(self, entry: Entry[InfoT]) -> type[Any]:
        """Import the class of an entry.

        Raises:
            RegistrationError: it does not import, or is not of this registry's kind.
        """
        return self.class_at(entry.target)

    def class_at(self, target: str) -> type[Any]:
        """Import the class of a target that was resolved before, in another process say.

        Raises:
            RegistrationError: it does not import, or is not of this registry's kind.
        """
        canonical, cls = self._import(target)
        self._of_class(cls, canonical)  # an undecorated class gets its record
        return cls

    @property
    def sought(self) -> Sought:
        """What an entry of this registry looks like in source."""
        base = self._base.partition(":")[2]
        return Sought(self._decorator, base, self.group.partition(".")[2])

    def _discover(self) -> tuple[dict[str, Entry[InfoT]], list[BrokenEntry]]:
        found: dict[str, Entry[InfoT]] = {}
        broken: list[BrokenEntry] = []
        for point in sorted(entry_points(group=self.group), key=self._is_foreign):
            for entry in self._behind(point):
                if isinstance(entry, BrokenEntry):
                    broken.append(entry)
                    continue
                first = found.setdefault(entry.id, entry)
                if first.target != entry.target:
                    reason = (
                        f"the id {entry.id!r} is taken by {first.target} ({first.path}); "
                        f"this one is {entry.target} ({entry.path})"
                    )
                    remedy = f"give one of the two another id in its {self._info_type.__name__}"
                    broken.append(_broken(point, entry.id, entry.target, reason, remedy))
        return found, broken

    def _is_foreign(self, point: EntryPoint) -> bool:
        """Our own come first: an id of theirs is theirs, whatever else is installed."""
        return point.value.partition(":")[0].split(".")[0] != self.sought.package

    def _behind(self, point: EntryPoint) -> Iterator[Entry[InfoT] | BrokenEntry]:
        """What an entry point leads to: one class, or every decorated class below a package."""
        if ":" in point.value:
            yield self._of_point(point)
            return
        found = scan(point.value, self._decorator)
        if not found:
            there = module_path(point.value) or package_folders(point.value)
            reason = (
                f"nothing in {point.value} is decorated with @{self._decorator}"
                if there
                else f"there is no package {point.value}"
            )
            yield _broken(point, point.name, point.value, reason)
        for one in found:
            yield self._of_source(point, one)

    def _of_point(self, point: EntryPoint) -> Entry[InfoT] | BrokenEntry:
        module, _, class_name = point.value.partition(":")
        path = module_path(module)
        info = read_info(path, class_name, self._decorator) if path else None
        try:
            entry = self._of_info(info, point.value, path)
        except RegistrationError as error:
            return _broken(point, point.name, point.value, str(error))
        if entry.id != point.name:
            told = (
                f"entry point {point.name!r} leads to {entry.target}, "
                f"which calls itself {entry.id!r}"
            )
            return _broken(point, point.name, point.value, told, "give both the same name")
        return entry

    def _of_source(
        self, point: EntryPoint, found: Found | Unreadable
    ) -> Entry[InfoT] | BrokenEntry:
        if isinstance(found, Unreadable):
            remedy = f"mend {found.path}"
            return _broken(point, found.module, found.module, found.reason, remedy)
        try:
            return self._of_info(found.info, found.target, found.path)
        except RegistrationError as error:
            name = str(getattr(found.info, "id", found.target))
            return _broken(point, name, found.target, str(error), f"mend {found.path}")

    def _of_info(self, info: Any, target: str, path: Path | None) -> Entry[InfoT]:
        """The entry of a record that was read from source; what that cannot tell is imported."""
        if isinstance(info, self._info_type):
            return Entry(self._checked_id(info, target), target, info, path)
        return self._of_class(self._import(target)[1], target)

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
        return Entry(self._checked_id(info, target), target, info, source_file(cls))

    def _checked_id(self, info: InfoT, target: str) -> str:
        name = str(getattr(info, "id", ""))
        if not _ID.fullmatch(name):
            raise RegistrationError(
                f"{target}: id {name!r} is not kebab-case (a-z, 0-9, dashes; + before a modifier)"
            )
        return name

    def _import(self, target: str) -> tuple[str, type]:
        canonical, cls = import_target(target, self.noun, self._base, self._adapt)
        self._classes[canonical] = cls
        return canonical, cls


def _broken(
    point: EntryPoint, name: str, target: str, reason: str, remedy: str = ""
) -> BrokenEntry:
    package = point.dist.name if point.dist is not None else ""
    remedy = remedy or (
        f"install {package} again, or mend the entry point {point.name!r} in its pyproject.toml"
    )
    return BrokenEntry(name, target, reason, point.name, package, remedy)
