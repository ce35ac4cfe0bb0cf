"""The summary of a country: sentences of a fixed template, filled from its fields.

This is table-to-text with a known answer, not human summarisation:

    <name> is a <government type> in <location>. its capital is <capital>. it borders <a and b and
    c>. people speak <a and b>. it trades with <a and b and c>. led by <chief of state>. it exports
    <a and b>.

A sentence whose field is missing is left out. Every word that is not of the template stands in the
source. (Human paragraphs about the countries do not serve as targets: most of what they say is not
in the fields, so that a decoder without cross attention does as well on them as one with it.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile

NAME = "Country name: conventional short form"
GOVERNMENT = "Government type"
LOCATION = "Location"
CAPITAL = "Capital: name"
BORDERS = "Land boundaries: border countries"
LANGUAGES = "Languages"
PARTNERS = "Exports - partners"
CHIEF = "Executive branch: chief of state"
COMMODITIES = "Exports - commodities"

REQUIRED = (NAME, GOVERNMENT, LOCATION, CAPITAL)
"""A record without one of these (an ocean, an uninhabited island) has no summary."""

_QUANTITY = re.compile(r"[\d.,/-]+|%|km|mi|sq")


def summary(fields: Mapping[str, Sequence[str]], limit: int) -> list[str]:
    """At most ``limit`` words; ``fields`` holds the words of each field and all of `REQUIRED`."""
    text = [
        *phrase(fields[NAME], 4),
        *("is", "a"),
        *phrase(fields[GOVERNMENT], 6),
        "in",
        *phrase(fields[LOCATION], 5, stop=",;("),
        ".",
        *("its", "capital", "is"),
        *phrase(fields[CAPITAL], 3),
        ".",
    ]
    for opening, words in (
        ("it borders", listing(fields.get(BORDERS, ()), 3)),
        ("people speak", listing(fields.get(LANGUAGES, ()), 2)),
        ("it trades with", listing(fields.get(PARTNERS, ()), 3)),
        ("led by", phrase(fields.get(CHIEF, ()), 5)),
        ("it exports", listing(fields.get(COMMODITIES, ()), 2)),
    ):
        if words:
            text += [*opening.split(), *words, "."]
    return text[:limit]


def phrase(words: Sequence[str], limit: int, stop: str = ";(") -> list[str]:
    """The first words, up to a mark of ``stop`` or a note."""
    return list(takewhile(lambda word: word not in stop and word != "note", words))[:limit]


def listing(words: Sequence[str], count: int) -> list[str]:
    """The first ``count`` items of a list, joined by "and"; quantities and asides are dropped."""
    items: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if word in ",;" and not depth:
            items.append([])
        elif not depth and word != ")" and not _QUANTITY.fullmatch(word):
            items[-1].append(word)
    text: list[str] = []
    for item in [item for item in items if item][:count]:
        text += ["and", *item] if text else item
    return text
