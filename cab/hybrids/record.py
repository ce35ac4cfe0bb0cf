"""A formula becomes an entry: its parts are looked up, their records make its own (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cab.errors import RegistrationError, UsageError
from cab.hybrids.formula import Part, cycle_of, formula_of, parse, shortest
from cab.info import AttentionInfo, Family, Grade, Kind, OptionValue
from cab.options import require_within_reason, resolve_options
from cab.patterns import Pattern

if TYPE_CHECKING:
    from cab.registry import Entry, Registry

_GRADES = tuple(Grade)
"""From the closest to the furthest"""


@dataclass(frozen=True)
class Member:
    """A part, with the entry that it names."""

    entry: Entry[AttentionInfo]
    options: dict[str, OptionValue]
    """All of the entry's options, in their types"""
    layers: int

    @property
    def named(self) -> Part:
        """By its id, with the options that differ from their defaults."""
        usual = self.entry.info.defaults()
        own = {name: value for name, value in self.options.items() if value != usual[name]}
        return Part(self.entry.id, self.layers, own)

    @property
    def placed(self) -> Part:
        """By the place of its class, with all options."""
        return Part(self.entry.target, self.layers, self.options)


def members_of(formula: str, registry: Registry[AttentionInfo]) -> tuple[Member, ...]:
    """The parts of a formula, of ids or of targets, in its one spelling.

    Raises:
        UnknownEntryError, RegistrationError, OptionError: of a part.
        UsageError: it is no formula, or its parts do not go together.
    """
    parts = parse(formula)
    cycle_of(parts)
    found = [_member(part, registry) for part in parts]
    for member in found:
        if member.entry.info.kind is Kind.MODIFIER:
            raise UsageError(
                f"{member.entry.id} changes a softmax layer after training; it is measured as an "
                "entry of its own, and is no part of a hybrid"
            )
        other = next(m for m in found if m.entry.id == member.entry.id)
        if other.entry.target != member.entry.target:
            raise UsageError(
                f"{other.entry.target} and {member.entry.target} both call themselves "
                f"{member.entry.id!r}; give one of them another id in its AttentionInfo"
            )
    by_name = {member.named.label: member for member in found}
    return tuple(
        Member(by_name[part.label].entry, by_name[part.label].options, part.layers)
        for part in shortest([member.named for member in found])
    )


def hybrid_info(members: Sequence[Member]) -> AttentionInfo:
    """The record of a hybrid. It has the patterns that all of its parts have, each with the lowest
    grade that a part has there, and no options: those of its parts stand in its name.

    Raises:
        UsageError: it has one part only, or no pattern.
    """
    named = [member.named for member in members]
    if len(members) == 1:
        alone = members[0].entry
        raise UsageError(
            f"a hybrid has at least two different parts, and this one is {named[0].label} in every "
            f"layer; name it alone: --attn {alone.id}"
        )
    grades = {pattern: [m.entry.info.grade(pattern) for m in members] for pattern in Pattern}
    patterns = {
        pattern: max((g for g in found if g is not None), key=_GRADES.index)
        for pattern, found in grades.items()
        if None not in found
    }
    if not patterns:
        claims = "; ".join(f"{m.entry.id}: {', '.join(m.entry.info.patterns)}" for m in members)
        raise UsageError(f"the parts of {formula_of(named)} have no pattern in common ({claims})")
    kinds = {member.entry.info.kind for member in members}
    years = [m.entry.info.year for m in members if m.entry.info.year is not None]
    layers = sum(member.layers for member in members)
    return AttentionInfo(
        id=formula_of(named),
        title="Hybrid of " + " and ".join(dict.fromkeys(m.entry.info.title for m in members)),
        formula=f"layer i of a stack: part i mod {layers} of "
        + ", ".join(part.label for part in cycle_of(named)[:12])
        + (", ..." if layers > 12 else ""),
        patterns=patterns,
        absent={p: _why(p, members) for p in Pattern if p not in patterns},
        time=_shares([(m.entry.info.time, m.layers) for m in members], layers),
        memory=_shares([(m.entry.info.memory, m.layers) for m in members], layers),
        paper="; ".join(dict.fromkeys(m.entry.info.paper for m in members if m.entry.info.paper)),
        year=max(years, default=None),
        kind=kinds.pop() if len(kinds) == 1 else Kind.ATTENTION,
        family=Family.HYBRID,
    )


def hybrid_target(members: Sequence[Member]) -> str:
    """The formula of a hybrid with the places of classes, and all options.

    Raises:
        RegistrationError: a path or a value in it cannot be told from the formula's own signs.
    """
    placed = [member.placed for member in members]
    target = formula_of(placed)
    try:
        same = [(part.label, part.layers) for part in parse(target)] == [
            (part.label, part.layers) for part in placed
        ]
    except UsageError:
        same = False
    if not same:
        raise RegistrationError(
            f"{target} cannot be read as a formula: a path, or the value of an option, has a "
            "comma, a parenthesis or an equals sign in it"
        )
    return target


def _member(part: Part, registry: Registry[AttentionInfo]) -> Member:
    entry = registry.resolve(part.name)
    options = resolve_options(entry.info, part.options)
    require_within_reason(entry.info, options)
    return Member(entry, options, part.layers)


def _why(pattern: Pattern, members: Sequence[Member]) -> str:
    """Which part has no form on a pattern, and why."""
    info = next(m.entry.info for m in members if m.entry.info.grade(pattern) is None)
    reason = info.absent.get(pattern, "")
    return f"{info.id} does not{f': {reason}' if reason else ''}"


def _shares(costs: Sequence[tuple[str, int]], layers: int) -> str:
    """``L^2 D in 1 of 4 layers, L D^2 in 3``."""
    first, *rest = costs
    words = [f"{first[0]} in {first[1]} of {layers} layers"]
    return ", ".join([*words, *(f"{cost} in {number}" for cost, number in rest)])
