"""The formula of a hybrid, ``lla(solver=cg):1,linear-elu:3``: which layer of a stack holds what.

A part is an entry with the options that it is built with and the number of layers that it takes.
The parts follow each other and begin again after the last: with C layers in all parts together,
layer i holds the part of place i mod C. The formula is the hybrid's name, in one spelling for every
sequence of layers: equal neighbours are one part, and a cycle that repeats itself is written once.

The same text with the places of the classes for the ids, and with all options for those that differ
from the defaults, is the hybrid's target: it leads to the parts from any process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from cab.errors import UsageError
from cab.info import OptionValue

LONGEST = 1024
"""Layers of a cycle: beyond any stack that is in use"""

_FORMULA = re.compile(r":\d+\s*(,|$)")
_SEPARATOR = re.compile(r",(?![^(]*\))")
"""A comma that stands in no parentheses"""
_PART = re.compile(r"(?P<name>[^,]+?)(\((?P<options>[^()]*)\))?:(?P<layers>\d{1,9})")
_EXAMPLE = "lla:1,linear-elu:3, and options before the number, as in lla(solver=cg):1"


@dataclass(frozen=True)
class Part:
    """One part of a formula."""

    name: str
    """Id or target of an entry"""
    layers: int
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """As they are written: words"""

    @property
    def label(self) -> str:
        """``lla(solver=cg)``."""
        words = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}({words})" if words else self.name

    def __str__(self) -> str:
        return f"{self.label}:{self.layers}"


def is_formula(name: str) -> bool:
    """Whether a name is meant as a formula. No id has a colon, and no class is called by a number,
    so nothing that names one entry is.
    """
    return _FORMULA.search(name) is not None


def parse(formula: str) -> tuple[Part, ...]:
    """The parts of a formula, as they are written.

    Raises:
        UsageError: it is none.
    """
    return tuple(_part(word.strip()) for word in _SEPARATOR.split(formula))


def formula_of(parts: Sequence[Part]) -> str:
    """The inverse of `parse`."""
    return ",".join(map(str, parts))


def cycle_of(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Layer by layer, for one cycle, the part that stands there.

    Raises:
        UsageError: a part has no layer, or the cycle is longer than any stack.
    """
    for part in parts:
        if not part.layers:
            raise UsageError(f"{part} has no layer; leave it out of the hybrid or give it one")
    layers = sum(part.layers for part in parts)
    if layers > LONGEST:
        raise UsageError(f"a hybrid repeats after {LONGEST} layers at most, not after {layers}")
    return tuple(part for part in parts for _ in range(part.layers))


def shortest(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts of the same sequence of layers in its one spelling.

    Raises:
        UsageError: see `cycle_of`.
    """
    cycle = [replace(part, layers=1) for part in cycle_of(parts)]
    period = next(
        n
        for n in range(1, len(cycle) + 1)
        if len(cycle) % n == 0 and cycle == cycle[:n] * (len(cycle) // n)
    )
    runs = (list(run) for _, run in groupby(cycle[:period]))
    return tuple(replace(run[0], layers=len(run)) for run in runs)


def _part(word: str) -> Part:
    found = _PART.fullmatch(word)
    if found is None:
        raise UsageError(f"a part of a hybrid is name:layers, as in {_EXAMPLE}; not {word[:80]!r}")
    options: dict[str, OptionValue] = {}
    for pair in (found["options"] or "").split(",") if found["options"] is not None else ():
        name, equals, value = (text.strip() for text in pair.partition("="))
        if not (name and equals and value):
            raise UsageError(f"an option in a hybrid is name=value, not {pair.strip()[:80]!r}")
        options[name] = value
    return Part(found["name"].strip(), int(found["layers"]), options)
