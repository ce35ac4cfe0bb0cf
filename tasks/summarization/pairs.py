"""What the task reads: pairs of a source in named fields and a target text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Pair:
    """One document with its summary, in words."""

    id: str
    source: Mapping[str, Sequence[str]]
    """Words of each field; plain text has one field."""
    target: Sequence[str]


Splits = dict[str, list[Pair]]
"""Pairs of the splits ``train``, ``validation`` and ``test``."""
