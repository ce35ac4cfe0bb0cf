"""The registry of attentions: entries, the hybrids that formulas make of them, and any of these
behind a short convolution.
"""

from __future__ import annotations

from typing import Any

from cab.convolved.name import convolved_info, parse_name, parse_target, target_of
from cab.errors import CabError
from cab.hybrids.formula import cycle_of, is_formula, parse
from cab.hybrids.record import hybrid_info, hybrid_target, members_of
from cab.info import AttentionInfo
from cab.options import resolve_options
from cab.registry import Entry, Registry


class AttentionRegistry(Registry[AttentionInfo]):
    """Takes a formula (`cab.hybrids.formula`), and a name with ``@conv4`` behind it
    (`cab.convolved.name`), wherever it takes the name of an entry.
    """

    def resolve(self, name: str) -> Entry[AttentionInfo]:
        """The entry of an id, of ``file.py:Class``, of ``module:Class`` or of a formula of these.

        Raises:
            UnknownEntryError, RegistrationError: see `cab.registry.Registry.resolve`.
            UsageError: a formula that makes no sense.
        """
        if not is_formula(name):
            return self._convolved(name) or super().resolve(name)
        members = members_of(name, self)
        info = hybrid_info(members)
        return Entry(info.id, hybrid_target(members), info, None)

    def class_at(self, target: str) -> type[Any]:
        """See `cab.registry.Registry.class_at`."""
        if not is_formula(target):
            found = parse_target(target)
            if found is None:
                return super().class_at(target)
            from cab.convolved.module import convolved_class

            inner = self.class_at(found[0])
            return convolved_class(inner, convolved_info(inner.info, found[1]), found[1])
        from cab.hybrids.module import hybrid_class

        parts = parse(target)
        classes = {part.name: self.class_at(part.name) for part in parts}
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
            if not self.parts_of(name):
                return self.entries().get(name)
            try:
                return self._convolved(name)
            except CabError:  # a width that is none
                return None
        return self.resolve(name) if self.parts_of(name) else None

    def parts_of(self, name: str) -> list[Entry[AttentionInfo]]:
        """The entries of which a formula of ids is made, each once, or the one behind a
        convolution; none where it is neither. Nothing is imported.
        """
        entries = self.entries()
        if not is_formula(name):
            found = parse_name(name)
            return [] if found is None or found[0] not in entries else [entries[found[0]]]
        try:
            if any(self.listed(part.name) is None for part in parse(name)):
                return []
            members = members_of(name, self)
            hybrid_info(members)
        except CabError:
            return []
        return list({m.entry.id: m.entry for m in members}.values())

    def _convolved(self, name: str) -> Entry[AttentionInfo] | None:
        """The entry of a name that ends with a convolution; None where it does not."""
        found = parse_target(name) or parse_name(name)
        if found is None:
            return None
        inner = self.resolve(found[0])
        info = convolved_info(inner.info, found[1])
        return Entry(info.id, target_of(inner.target, found[1]), info, None)
