"""Multi-query associative recall (Arora et al. 2023, "Zoology", arXiv 2312.04927).

P distinct keys and P distinct values are drawn uniformly and paired. As a stream,

    k_1 v_1 k_2 v_2 ... k_P v_P  _ _ k_5 _ k_2 _ ...

the pairs stand first and every key is asked for once in what follows, at an even distance 2g from
the end of the pairs. The slots g = 0, 1, ... are drawn without replacement with probability
proportional to (g + 1)^(a - 1), a = 0.01: most questions come soon, a few late, as repetitions in
text do. The answer is wanted at the question itself. As a source, the pairs are tokens of their own
and the same keys are asked for in random order.

Two things differ from the published generator: places without a question hold a blank (there, by
default, a random token, which may repeat a key and give it a second value), and the vocabulary is
smaller at scale small.

Tokens: 0 is the blank, then the keys, then the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.problems.recall import distinct

POWER = 0.01
"""a, of the distances' power law"""

BLANK = 0


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of recall problems."""

    keys: int
    values: int

    @property
    def first_value(self) -> int:
        """Token of value 0."""
        return 1 + self.keys

    @property
    def tokens(self) -> int:
        """Of all kinds together."""
        return 1 + self.keys + self.values


@dataclass(frozen=True)
class Pairs:
    """B problems of P pairs each."""

    keys: Tensor
    """(B, P) tokens"""
    values: Tensor
    """(B, P) tokens"""


def draw_pairs(
    problems: int, pairs: int, vocabulary: Vocabulary, generator: torch.Generator
) -> Pairs:
    """Distinct keys and distinct values, uniform."""
    return Pairs(
        1 + distinct(problems, vocabulary.keys, pairs, generator),
        vocabulary.first_value + distinct(problems, vocabulary.values, pairs, generator),
    )


def question_slots(problems: int, pairs: int, slots: int, generator: torch.Generator) -> Tensor:
    """(B, P) slots of the questions, drawn one after the other without replacement."""
    odds = torch.arange(1, slots + 1, dtype=torch.float64) ** (POWER - 1)
    return torch.multinomial(odds.expand(problems, -1), pairs, generator=generator)


def stream_batch(
    drawn: Pairs, length: int, vocabulary: Vocabulary, generator: torch.Generator
) -> dict[str, Tensor]:
    """Pairs and questions as one stream.

    Returns:
        tokens (B, L); read (B, P), the places of the questions; targets (B, P), the values asked
        for, counted from 0.

    Raises:
        ValueError: pairs and questions do not fit into ``length``.
    """
    problems, pairs = drawn.keys.shape
    if length % 2 or 4 * pairs > length:
        raise ValueError(f"{pairs} pairs and as many questions need an even length of {4 * pairs}")
    tokens = torch.full((problems, length), BLANK)
    tokens[:, : 2 * pairs : 2] = drawn.keys
    tokens[:, 1 : 2 * pairs : 2] = drawn.values
    slots = question_slots(problems, pairs, (length - 2 * pairs) // 2, generator)
    read = 2 * pairs + 2 * slots
    tokens.scatter_(1, read, drawn.keys)
    return {"tokens": tokens, "read": read, "targets": drawn.values - vocabulary.first_value}


def source_batch(
    drawn: Pairs, vocabulary: Vocabulary, generator: torch.Generator
) -> dict[str, Tensor]:
    """Pairs as a source, and all their keys in random order.

    Returns:
        keys and values (B, P); asked (B, P); targets (B, P), the values asked for, counted from 0.
    """
    problems, pairs = drawn.keys.shape
    order = distinct(problems, pairs, pairs, generator)
    return {
        "keys": drawn.keys,
        "values": drawn.values,
        "asked": drawn.keys.gather(1, order),
        "targets": drawn.values.gather(1, order) - vocabulary.first_value,
    }
