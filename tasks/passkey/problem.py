"""Needles in filler.

A stream of n tokens ends with one question or more. Before them stands filler, every token uniform
over the filler vocabulary, and in it ``needles`` pairs ``key value`` with distinct keys and
distinct values, at distinct even places. A question is a token of filler and then one of the keys;
the key's value is wanted. So there are as many possible answers in the stream as needles, and only
the key tells which one is asked for.

The depth of a needle is the share of the stream before it: 0 is the very start, 1 the last place
before the questions. In training the needles are uniform over all places and several are asked for;
in evaluation one is asked for, at a given depth, and the others are uniform over the places left.

Tokens: the filler first, then the keys, then the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.problems.recall import distinct


@dataclass(frozen=True)
class Haystack:
    """What streams are drawn from."""

    filler: int
    """Tokens of the filler vocabulary"""
    keys: int
    values: int
    needles: int
    """Per stream; all but one of them distract"""

    @property
    def first_value(self) -> int:
        """Token of value 0."""
        return self.filler + self.keys

    @property
    def tokens(self) -> int:
        """Of all kinds together."""
        return self.filler + self.keys + self.values


def places(length: int, questions: int) -> int:
    """Places of a stream where a needle may stand, each two tokens wide."""
    return length // 2 - questions


def draw_places(
    problems: int, length: int, questions: int, haystack: Haystack, generator: torch.Generator
) -> Tensor:
    """(B, needles) distinct places, uniform.

    Raises:
        ValueError: the needles do not fit into ``length``.
    """
    count = places(length, questions)
    if haystack.needles > count:
        raise ValueError(f"{haystack.needles} needles do not fit into {length} tokens")
    return distinct(problems, count, haystack.needles, generator)


def draw_places_at(
    depths: Tensor, length: int, haystack: Haystack, generator: torch.Generator
) -> Tensor:
    """(B, needles) distinct places; the first of each row is at ``depths`` (B,) in 0..1."""
    count = places(length, 1)
    first = (depths * (count - 1)).round().long()[:, None]
    others = distinct(len(depths), count - 1, haystack.needles - 1, generator)
    # Places from the first needle onwards move on by one, so that it stays alone.
    return torch.cat([first, others + (others >= first).long()], dim=1)


def draw_streams(
    starts: Tensor, length: int, questions: int, haystack: Haystack, generator: torch.Generator
) -> dict[str, Tensor]:
    """Streams with needles at the places ``starts`` (B, needles), of which the first are asked for;
    ``length`` is even.

    Returns:
        tokens (B, n); read (B, questions), the places of the questions; targets (B, questions),
        the values asked for, counted from 0.
    """
    problems, count = starts.shape
    tokens = torch.randint(haystack.filler, (problems, length), generator=generator)
    keys = haystack.filler + distinct(problems, haystack.keys, count, generator)
    values = haystack.first_value + distinct(problems, haystack.values, count, generator)
    tokens.scatter_(1, 2 * starts, keys).scatter_(1, 2 * starts + 1, values)
    read = torch.arange(length - 2 * questions + 1, length, 2).repeat(problems, 1)
    tokens.scatter_(1, read, keys[:, :questions])
    return {
        "tokens": tokens,
        "read": read,
        "targets": values[:, :questions] - haystack.first_value,
    }
