"""The registry of attentions: entries, and the hybrids that formulas make of them."""

from __future__ import annotations

from typing import Any

from cab.errors import CabError
from cab.hybrids.formula import cycle_of, is_formula, parse
from cab.hybrids.record import hybrid_info, hybrid_target, members_of
from cab.info import AttentionInfo
from cab.options import resolve_options
from cab.registry import Entry, Registry


class AttentionRegistry(Registry[AttentionInfo]):
    """Takes a formula (`cab.hybrids.formula`) wherever it takes the name of an entry."""

    def resolve(self, name: str) -> Entry[AttentionInfo]:
        """The entry of an id, of ``file.py:Class``, of ``module:Class`` or of a formula of these.

        Raises:
            UnknownEntryError, RegistrationError: see `cab.registry.Registry.resolve`.
            UsageError: a formula that makes no sense.
        """
        if not is_formula(name):
            return super().resolve(name)
        members = members_of(name, self)
        info = hybrid_info(members)
        return Entry(info.id, hybrid_target(members), info, None)

    def class_at(self, target: str) -> type[Any]:
        """See `cab.registry.Registry.class_at`."""
        if not is_formula(target):
            return super().class_at(target)
        from cab.hybrids.module import hybrid_class

        parts = parse(target)
        classes = {part.name: super(AttentionRegistry, self).class_at(part.name) for part in parts}
        cycle = [
            (classes[part.name], resolve_options(classes[part.name].info, part.options))
            for part in cycle_of(parts)
        ]
        return hybrid_class(self.resolve(target).info, cycle)

    def listed(self, name: str) -> Entry[AttentionInfo] | None:
        """The entry of an id, or of a formula of ids; None where there is none. Nothing is
        imported, whatever the name: it may come from anyone's results.
        """
        if not is_formula(name):
            return self.entries().get(name)
        return self.resolve(name) if self.parts_of(name) else None

    def parts_of(self, name: str) -> list[Entry[AttentionInfo]]:
        """The entries of which a formula of ids is made, each once; none where it is no such
        formula. Nothing is imported.
        """
        if not is_formula(name):
            return []
        entries = self.entries()
        try:
            if any(part.name not in entries for part in parse(name)):
                return []
            members = members_of(name, self)
            hybrid_info(members)
        except CabError:
            return []
        return list({m.entry.id: m.entry for m in members}.values())
