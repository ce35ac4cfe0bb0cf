"""A candidate: an entry with the options that it is measured with, looked up once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cab.errors import OptionError, UsageError
from cab.info import AttentionInfo, Grade, Option, OptionValue
from cab.options import preset_options, require_pattern, resolve_options
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

    def require_buildable(self) -> None:
        """Refuse values that only the constructor knows to be wrong (one must be even, say), before
        a worker meets them in every cell.

        Raises:
            OptionError: the constructor refuses them on one of the entry's patterns.
        """
        from cab.attention_contract import AttentionSpec

        for pattern in self.info.patterns:
            try:
                self.build(AttentionSpec(pattern, heads=2, head_dim=8))
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
    for option in entry.info.options:
        _require_within_reason(entry.id, option, chosen[option.name])
    return Candidate(entry, chosen, hashes=hashes or PlanHashes())


def _require_within_reason(entry: str, option: Option, value: OptionValue) -> None:
    """A number that no machine could serve ends here, and not in an allocation of terabytes.

    Raises:
        OptionError: a whole number beyond what the option takes, or one that is not finite.
    """
    which = f"option {option.name!r} of attention {entry!r}"
    if isinstance(value, bool | str):
        return
    if isinstance(value, int) and abs(value) > option.most:
        raise OptionError(f"{which} is at most {option.most}")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{which} must be finite, not {value!r}")


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
    was asked for by name.

    Raises:
        UnknownEntryError, RegistrationError, OptionError; UsageError: two have the same id.
    """
    given, hashes = dict(options or {}), hashes or PlanHashes()
    entries = _entries(names)
    for name, value in given.items():
        if not any(name in entry.info.defaults() for entry in entries):
            resolve_options(entries[0].info, {name: value})
    lacking = [entry.id for entry in entries if preset and preset not in entry.info.presets]
    if lacking and (ALL not in names or len(lacking) == len(entries)):
        preset_options(next(e.info for e in entries if e.id == lacking[0]), preset)
    candidates = []
    for entry in entries:
        own = {name: value for name, value in given.items() if name in entry.info.defaults()}
        named = "" if entry.id in lacking else preset
        candidate = candidate_of(entry, own, named, hashes)
        if own or named:
            candidate.require_buildable()
        candidates.append(candidate)
    return candidates, [f"{name} has no preset {preset}: its defaults" for name in lacking]


def _entries(names: Sequence[str]) -> list[Entry[AttentionInfo]]:
    if ALL in names:
        return list(ATTENTIONS.entries().values())
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
