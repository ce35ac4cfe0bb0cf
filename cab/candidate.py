"""A candidate: an entry with the options that it is measured with, looked up once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any

from cab.errors import OptionError, UsageError
from cab.hybrids.formula import Part, is_formula, parse
from cab.info import AttentionInfo, Grade, OptionValue
from cab.options import (
    preset_options,
    require_pattern,
    require_within_reason,
    resolve_options,
)
from cab.patterns import Pattern
from cab.plan_hashes import PlanHashes
from cab.registries import ALL, ATTENTIONS
from cab.registry import Entry, OfEntry

if TYPE_CHECKING:
    from cab.attention_contract import Attention, AttentionSpec


@dataclass(frozen=True)
class Candidate(OfEntry[AttentionInfo]):
    """An entry as it is to be measured. Nothing of it is imported until `load`."""

    entry: Entry[AttentionInfo]
    options: Mapping[str, OptionValue]
    """All of the entry's options, in their types"""
    training: Mapping[str, OptionValue] = field(default_factory=dict)
    """What its training is given beside a task's recipe (`cab.regularisers`)"""
    hashes: PlanHashes = field(default_factory=PlanHashes, repr=False, compare=False)

    def grade(self, pattern: Pattern) -> Grade | None:
        """How close it is to what was published on a pattern; None where it does not claim it."""
        return self.info.grade(pattern)

    def require(self, pattern: Pattern) -> Grade:
        """The grade of a pattern.

        Raises:
            UnsupportedPatternError: the entry does not claim it.
        """
        return require_pattern(self.info, pattern)

    def hash(self, kind: str) -> str:
        """Of the code that a quality or an efficiency cell of it depends on."""
        return self.hashes.attention(self.target, kind)

    def load(self) -> type[Any]:
        """Its class, imported.

        Raises:
            RegistrationError: it does not import, or is no attention.
        """
        return ATTENTIONS.load(self.entry)

    def build(self, spec: AttentionSpec) -> Attention:
        """A module for a slot.

        Raises:
            UnsupportedPatternError: the entry does not claim the slot's pattern.
        """
        from cab.attention_contract import build_attention

        return build_attention(self.load(), spec, self.options)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of a hybrid its parts, by the names that its formula has for them; of what is none, no
        part.
        """
        return parse(self.id) if is_formula(self.target) else ()

    def require_buildable(self) -> None:
        """Refuse values that only the constructor knows to be wrong (one must be even, say), before
        a worker meets them in every cell.

        Raises:
            OptionError: the constructor refuses them on one of the entry's patterns.
        """
        from cab.attention_contract import AttentionSpec

        *firsts, layers = accumulate((part.layers for part in self.parts), initial=0)
        for pattern, layer in product(self.info.patterns, firsts or [0]):
            try:
                self.build(AttentionSpec(pattern, 2, 8, layer_index=layer, layers=max(1, layers)))
            except ValueError as error:
                raise OptionError(f"attention {self.id!r}: {error}") from error
            except Exception as error:  # a constructor may raise anything
                from cab.checks.advice import crash

                raise OptionError(
                    f"attention {self.id!r} cannot be built: {crash(error, self.load())}"
                ) from error


def candidate_of(
    entry: Entry[AttentionInfo],
    options: Mapping[str, OptionValue] | None = None,
    preset: str = "",
    hashes: PlanHashes | None = None,
) -> Candidate:
    """An entry with options on top of a preset on top of its defaults.

    Raises:
        OptionError: the entry has no such option or preset, or a value does not fit.
    """
    named = preset_options(entry.info, preset) if preset else {}
    chosen = resolve_options(entry.info, named | dict(options or {}))
    require_within_reason(entry.info, chosen)
    return Candidate(entry, chosen, hashes=hashes or PlanHashes())


def choose_candidate(
    name: str,
    options: Mapping[str, OptionValue] | None = None,
    preset: str = "",
    hashes: PlanHashes | None = None,
) -> Candidate:
    """The candidate of a name: an id, ``file.py:Class`` or ``module:Class``.

    Raises:
        UnknownEntryError, RegistrationError, OptionError.
    """
    return candidate_of(ATTENTIONS.resolve(name), options, preset, hashes)


def choose_candidates(
    names: Sequence[str],
    options: Mapping[str, OptionValue] | None = None,
    preset: str = "",
    hashes: PlanHashes | None = None,
) -> tuple[list[Candidate], list[str]]:
    """The candidates of names, ``all`` among them, and what there is to say of their presets.

    A given option goes to every candidate that has it; a preset must be had by every candidate that
    was asked for by name. Hybrids have neither: the options of their parts stand in their names.

    Raises:
        UnknownEntryError, RegistrationError, OptionError; UsageError: two have the same id.
    """
    given, hashes = dict(options or {}), hashes or PlanHashes()
    entries = _entries(names)
    for name, value in given.items():
        if not any(name in entry.info.defaults() for entry in entries):
            if is_formula(entries[0].target):
                raise OptionError(
                    f"options of a hybrid's parts stand in its name, as in lla(solver=cg):1; "
                    f"{entries[0].id!r} takes no {name!r} beside it"
                )
            resolve_options(entries[0].info, {name: value})
    lacking = [entry.id for entry in entries if preset and preset not in entry.info.presets]
    if lacking and (ALL not in names or len(lacking) == len(entries)):
        preset_options(next(e.info for e in entries if e.id == lacking[0]), preset)
    candidates = []
    for entry in entries:
        own = {name: value for name, value in given.items() if name in entry.info.defaults()}
        named = "" if entry.id in lacking else preset
        candidate = candidate_of(entry, own, named, hashes)
        if own or named or any(part.options for part in candidate.parts):
            candidate.require_buildable()
        candidates.append(candidate)
    return candidates, [f"{name} has no preset {preset}: its defaults" for name in lacking]


def _entries(names: Sequence[str]) -> list[Entry[AttentionInfo]]:
    if ALL in names:
        hybrids = [ATTENTIONS.resolve(name) for name in names if is_formula(name)]
        return list((ATTENTIONS.entries() | {entry.id: entry for entry in hybrids}).values())
    chosen: dict[str, Entry[AttentionInfo]] = {}
    for name in names:
        entry = ATTENTIONS.resolve(name)
        other = chosen.setdefault(entry.id, entry)
        if other.target != entry.target:
            raise UsageError(
                f"{other.target} and {entry.target} both call themselves {entry.id!r}; "
                "give one of them another id in its AttentionInfo"
            )
    return list(chosen.values())
