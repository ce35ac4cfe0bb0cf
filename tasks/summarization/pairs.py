"""What the tasks read: pairs of a source and a target, as text or as words in named fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TextPair:
    """One document with its summary, as they were written."""

    id: str
    source: str
    target: str


@dataclass(frozen=True)
class Pair:
    """One document with its summary, in words."""

    id: str
    source: Mapping[str, Sequence[str]]
    """Words of each field; plain text has one field."""
    target: Sequence[str]


Splits = dict[str, list[Pair]]
"""Pairs of the splits ``train``, ``validation`` and ``test``."""
