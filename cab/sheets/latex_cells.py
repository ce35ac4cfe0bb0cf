"""Columns of numbers as LaTeX: real signs, digits below each other, dashes for what is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cab.sheets.words import NOTHING
from cab.tex import escaped, part_of

_NUMBER = re.compile(r"(?<![\w.])(?:(?<![-])[+-])?\d[\d,]*(?:\.\d+)?")
_BOUNDS = re.compile(r"(.+) \.\. (.+)")


def cells(column: Sequence[str], bold: Sequence[bool]) -> list[str]:
    """The cells of a column of numbers, for a column that is flush right.

    Of cells that are built alike - ``0.71 ± 0.01``, ``12 % (3-20)`` - the digits stand below each
    other: what one lacks of another's is left as wide as it is there. ``a .. b`` becomes
    ``[a, b]``, and a hyphen between numbers a dash.

    Args:
        column: words from the top.
        bold: which of them are set in bold.
    """
    taken = [_Cell.of(words) for words in column]
    shapes: dict[tuple[str, ...], list[_Cell]] = {}
    for cell in taken:
        shapes.setdefault(cell.between, []).append(cell)
    return [
        cell.tex(shapes[cell.between], strong) for cell, strong in zip(taken, bold, strict=True)
    ]


class _Cell:
    """Numbers, and the words before, between and behind them."""

    def __init__(self, numbers: Sequence[str], between: Sequence[str]) -> None:
        self.numbers, self.between = tuple(numbers), tuple(between)

    @classmethod
    def of(cls, words: str) -> _Cell:
        bounds = _BOUNDS.fullmatch(words)
        words = f"[{bounds[1]}, {bounds[2]}]" if bounds else words
        return cls(_NUMBER.findall(words), _NUMBER.split(words))

    def tex(self, alike: Sequence[_Cell], bold: bool) -> str:
        if not self.numbers:
            words = "--" if self.between == (NOTHING,) else escaped(self.between[0])
            return rf"\textbf{{{words}}}" if bold and words else words
        parts = []
        for place, number in enumerate(self.numbers):
            others = [cell.numbers[place] for cell in alike]
            before, glue = _phantom(_before(number, others) if place else ""), self.between[place]
            if before and glue.endswith("("):  # room in front of the bracket, not behind it
                ahead = f"{_glue(glue[:-1], bold)}${before}${_glue('(', bold)}"
                parts.append(ahead + _number(number, "", others, bold))
            else:
                parts.append(_glue(glue, bold) + _number(number, before, others, bold))
        return "".join(parts) + _glue(self.between[-1], bold)


def _number(number: str, before: str, others: Sequence[str], bold: bool) -> str:
    """A number with room before it, and behind it up to the end of the longest fraction."""
    fraction = number.partition(".")[2]
    missing = max(len(other.partition(".")[2]) for other in others) - len(fraction)
    behind = "0" * missing if fraction or not missing else "." + "0" * missing
    body = number.replace(",", "{,}")
    if before and body[0] in "+-":  # behind something a sign would be an operator, with room around
        body = f"{{{body[0]}}}{body[1:]}"
    body = rf"\mathbf{{{body}}}" if bold else body
    return f"${before}{body}{_phantom(behind)}$"


def _before(number: str, others: Sequence[str]) -> str:
    """The digits, and the sign, by which others are longer before their point."""
    whole = [other.partition(".")[0] for other in (number, *others)]
    digits = [len(part.lstrip("+-")) for part in whole]
    signs = [part[0] in "+-" for part in whole]
    return "0" * (max(digits) - digits[0]) + ("-" if any(signs) and not signs[0] else "")


def _phantom(words: str) -> str:
    return rf"\phantom{{{words}}}" if words else ""


def _glue(words: str, bold: bool) -> str:
    if not words:
        return ""
    if words == "-":
        return "--"
    if words.startswith("x"):
        return r"$\times$" + _glue(words[1:], bold)
    text = part_of(words)
    return rf"\textbf{{{text}}}" if bold and words.strip() else text
