"""Words of permutations, and the state that they lead to.

N objects stand in N positions, object p in position p. Every token is a permutation g of the
positions: afterwards position p holds what position g(p) held. After token t,

    state_t(p) = state_{t-1}(g_t(p)),

so the state is the running product of the word. Two kinds of words, both uniform over their
alphabet and independent from token to token:

* ``swaps``: the N(N-1)/2 exchanges of two positions;
* ``words``: all N! permutations, the word problem of the symmetric group. For N >= 5 it is complete
  for NC^1 (Barrington 1989), which a model of constant depth with softmax or local linear attention
  cannot solve at every length unless TC^0 = NC^1 (Merrill and Sabharwal 2023). A recurrence that
  updates one permutation solves both kinds.

What can be known of state_t(p) without the past: after a uniform random word of t swaps position p
still holds object p with probability 1/N + (1 - 1/N) r^t, r = 1 - 2/(N - 1); after one random
permutation every object is as likely. So the best guess from the last w tokens alone is their
product, right with that probability at t - w in place of t.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["swaps", "words"]


@dataclass(frozen=True)
class Case:
    """A kind of words over N positions."""

    kind: Kind
    objects: int
    """N"""

    @property
    def name(self) -> str:
        """As in the names of metrics."""
        return f"{self.kind}_{self.objects}"

    def alphabet(self) -> Tensor:
        """(letters, N) permutations, in a fixed order; row g holds g(0), ..., g(N - 1)."""
        positions = range(self.objects)
        if self.kind == "words":
            return torch.tensor(list(itertools.permutations(positions)))
        rows = torch.arange(self.objects).repeat(self.objects * (self.objects - 1) // 2, 1)
        for row, (i, j) in zip(rows, itertools.combinations(positions, 2), strict=True):
            row[i], row[j] = j, i
        return rows

    def stays(self, steps: int) -> float:
        """Probability that a position holds its first object after ``steps`` random letters."""
        ratio = 0.0 if self.kind == "words" else 1 - 2 / (self.objects - 1)
        return 1 / self.objects + (1 - 1 / self.objects) * ratio**steps


def draw_letters(problems: int, steps: int, alphabet: Tensor, generator: torch.Generator) -> Tensor:
    """(B, T) indices into the alphabet, uniform."""
    return torch.randint(len(alphabet), (problems, steps), generator=generator)


def track(letters: Tensor, alphabet: Tensor) -> Tensor:
    """(B, T, N) the states after every letter of (B, T), exactly, by following them."""
    word = alphabet[letters]
    state = torch.arange(alphabet.shape[1]).expand(len(letters), -1)
    states = []
    for step in range(letters.shape[1]):
        state = state.gather(1, word[:, step])
        states.append(state)
    return torch.stack(states, dim=1)


def track_last(letters: Tensor, alphabet: Tensor, window: int) -> Tensor:
    """(B, T, N) the states as if only the last ``window`` letters had been: the best guess from
    these alone.
    """
    steps = letters.shape[1]
    ends = [
        track(letters[:, max(0, step + 1 - window) : step + 1], alphabet)[:, -1]
        for step in range(steps)
    ]
    return torch.stack(ends, dim=1)
