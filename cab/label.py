"""Who measured a number: part of what a row is, and known from where it lies, not from what it
says.

A row in the folder that comes with this package is a reference result, one in a user's folder is
the user's own. A file may say otherwise; nobody who reads it believes that.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Label(StrEnum):
    """Who measured, in the order in which tables name them."""

    SELF_REPORTED = "self-reported"
    """Whoever owns the results folder."""
    VERIFIED = "verified"
    """A user's number that the project measured again."""
    REFERENCE = "reference"
    """The project; the numbers come with the package."""
    PUBLISHED = "published"
    """The authors of a paper."""


MIXED = "mixed"
"""Word of a table's cell for an entry with rows of several labels"""


def label_words(labels: Iterable[object]) -> str:
    """``reference``, or ``self-reported, reference``; empty where nobody recorded any."""
    present = {str(label) for label in labels if isinstance(label, str)}
    known = [label.value for label in Label]
    return ", ".join(sorted(present, key=lambda word: (word not in known, _place(known, word))))


def labels_in(words: str) -> list[str]:
    """The labels of `label_words`."""
    return [word for word in words.split(", ") if word]


def short_label(words: str) -> str:
    """For the narrow cell of a table: one label, or that there are several."""
    return MIXED if len(labels_in(words)) > 1 else words


def _place(known: list[str], word: str) -> tuple[int, str]:
    return (known.index(word), "") if word in known else (len(known), word)
