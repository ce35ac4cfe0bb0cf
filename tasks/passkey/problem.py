"""Needles in filler.

A stream of n tokens ends with one question or more. Before them stands filler, every token uniform
over the filler vocabulary, and in it ``needles`` pairs ``key value`` with distinct keys and
distinct values, at distinct even places. A question is a token of filler and then one of the keys;
the key's value is wanted. So there are as many possible answers in the stream as needles, and only
the key tells which one is asked for.

Several needles are asked for in every stream. In training all needles are uniform over all places;
in evaluation those asked for are spread over the stream, one in each of as many equal parts, at a
random place of it, so that every stream tests every depth. The questions come in random order.

A stream stands anywhere among the places that the model has codes for: its first token has a place
of its own, which is drawn. So no needle stands at a place that is special, and in long streams none
at one that training never saw.

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


def draw_places_spread(
    problems: int, length: int, questions: int, haystack: Haystack, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Distinct places of needles of which the first ``questions`` are spread over the stream.

    Returns:
        (B, needles) places, and (B, questions) in which of the equal parts of the stream the first
        of them lie, in random order. All others are uniform over the places left.

    Raises:
        ValueError: the needles do not fit into ``length``.
    """
    count = places(length, questions)
    if haystack.needles > count:
        raise ValueError(f"{haystack.needles} needles do not fit into {length} tokens")
    part = distinct(problems, questions, questions, generator)
    low, high = part * count // questions, (part + 1) * count // questions
    asked = low + (torch.rand(part.shape, generator=generator) * (high - low)).long()
    order = torch.rand(problems, count, generator=generator).scatter(1, asked, 2.0)
    others = order.argsort(1)[:, : haystack.needles - questions]
    return torch.cat([asked, others], dim=1), part


def draw_streams(
    starts: Tensor,
    length: int,
    questions: int,
    haystack: Haystack,
    generator: torch.Generator,
    longest: int,
) -> dict[str, Tensor]:
    """Streams with needles at the places ``starts`` (B, needles), of which the first are asked for;
    ``length`` is even, and a stream stands somewhere within ``longest`` places.

    Returns:
        tokens (B, n); first (B,), the place of the first token; read (B, questions), the tokens
        that ask, counted from 0; targets (B, questions), the values asked for, counted from 0.
    """
    problems, count = starts.shape
    first = torch.randint(longest - length + 1, (problems,), generator=generator)
    tokens = torch.randint(haystack.filler, (problems, length), generator=generator)
    keys = haystack.filler + distinct(problems, haystack.keys, count, generator)
    values = haystack.first_value + distinct(problems, haystack.values, count, generator)
    tokens.scatter_(1, 2 * starts, keys).scatter_(1, 2 * starts + 1, values)
    read = torch.arange(length - 2 * questions + 1, length, 2).repeat(problems, 1)
    tokens.scatter_(1, read, keys[:, :questions])
    return {
        "tokens": tokens,
        "first": first,
        "read": read,
        "targets": values[:, :questions] - haystack.first_value,
    }
