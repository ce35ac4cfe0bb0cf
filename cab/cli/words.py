"""What the user typed, turned into what commands take: numbers within limits, and paths.

Everything here answers at once with a `UsageError`, whatever was typed: a limit that nobody reaches
on purpose is better than a traceback from the depth of a library, or a plan of 10^9 cells.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from cab.errors import UsageError

LONGEST_WORD = 4096
"""Characters of one word of the command line, a path among them"""
LONGEST_SEQUENCE = 1 << 24
"""Tokens of a sequence that is timed: 16 Mi"""
MOST_SEEDS = 1000
MOST_SECONDS = 1e8
"""Three years"""

_LONGEST_NAME = 255
"""Bytes of one part of a path, on the usual file systems"""
_SHOWN = 40
"""Characters of a refused word that are shown"""


def shown(word: object) -> str:
    """A word in quotes, cut where it is long."""
    text = str(word)
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def require_words(words: Sequence[str]) -> None:
    """No word of the command line is empty, or longer than any name or path.

    Raises:
        UsageError: names the option.
    """
    before = "an argument"
    for word in words:
        flag, equals, value = word.partition("=")
        attached = bool(equals) and flag.startswith("-")
        named, given = (flag, value) if attached else (before, word)
        if not given.strip():
            raise UsageError(f"{named} is empty; leave it out, or give it a value")
        if len(given) > LONGEST_WORD:
            raise UsageError(
                f"{named} has {len(given)} characters, {LONGEST_WORD} at most: {shown(given)}"
            )
        before = word if word.startswith("-") and not attached else "an argument"


def whole(flag: str, least: int = 1, most: int = 1 << 20) -> Callable[[str | int], int]:
    """A parser of whole numbers.

    Args:
        flag: named in errors.
        least: smallest number that it takes.
        most: largest.
    """

    def parse(word: str | int) -> int:
        text = str(word).strip()
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise UsageError(f"{flag} takes a whole number, not {shown(word)}")
        # Python refuses to read numbers of thousands of digits.
        digits = text.lstrip("+-0") or "0"
        number = int(digits) if len(digits) <= _SHOWN else most + 1
        number = -number if text.startswith("-") else number
        if number < least:
            raise UsageError(f"{flag} must be at least {least}, not {_cut(text)}")
        if number > most:
            raise UsageError(f"{flag} must be at most {most}, not {_cut(text)}")
        return number

    return parse


def seconds(flag: str) -> Callable[[str | float], float]:
    """A parser of times: positive, finite, three years at most."""

    def parse(word: str | float) -> float:
        text = str(word).strip()
        try:
            number = float(text) if text.isascii() else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise UsageError(f"{flag} takes a number of seconds, not {shown(word)}")
        if not number > 0:
            raise UsageError(f"{flag} must be positive, not {_cut(text)}")
        if number > MOST_SECONDS:
            raise UsageError(f"{flag} must be at most {MOST_SECONDS:.0f} seconds, not {_cut(text)}")
        return number

    return parse


def size(flag: str, most: float) -> Callable[[str | float], float]:
    """A parser of positive numbers up to ``most``."""

    def parse(word: str | float) -> float:
        text = str(word).strip()
        try:
            number = float(text) if text.isascii() else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise UsageError(f"{flag} takes a number, not {shown(word)}")
        if not 0 < number <= most:
            raise UsageError(f"{flag} must be above 0 and at most {most:g}, not {_cut(text)}")
        return number

    return parse


def path(flag: str) -> Callable[[str | Path], Path]:
    """A parser of paths: ``~`` is the home folder, as where a shell has not seen it."""

    def parse(word: str | Path) -> Path:
        try:
            found = Path(word).expanduser()
        except RuntimeError:
            raise UsageError(f"{flag} {shown(word)}: there is no such home folder") from None
        for part in found.parts:
            if len(os.fsencode(part)) > _LONGEST_NAME:
                raise UsageError(
                    f"{flag}: a name of {len(os.fsencode(part))} bytes, {_LONGEST_NAME} at most: "
                    f"{shown(part)}"
                )
        return found

    return parse


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
