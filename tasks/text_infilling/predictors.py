"""Predictors from counts that the scores are read against: a Markov chain, and letters alone.

Shapes: B windows, T characters, V characters of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.data.text import EncodedText

SMOOTHING = 0.01
"""Added to every count of a pair; on validation data 0.001 to 1 differ by 0.002 bits"""


def letter_frequencies(text: EncodedText, size: int) -> Tensor:
    """(V,) float64 probabilities of characters; each is counted once more than it is there."""
    counts = torch.bincount(text.ids.long(), minlength=size).double() + 1
    return counts / counts.sum()


def transitions(text: EncodedText, size: int, smoothing: float = SMOOTHING) -> Tensor:
    """(V, V) float64 probabilities of a character (column) after another (row)."""
    ids = text.ids.long()
    pairs = torch.bincount(ids[:-1] * size + ids[1:], minlength=size * size).double()
    counts = pairs.view(size, size) + smoothing
    return counts / counts.sum(1, keepdim=True)


def markov(batch: Batch, first: Tensor, chain: Tensor) -> Tensor:
    """(B, M, V) float64 log-probabilities of the hidden characters given all visible ones, where
    the text is a Markov chain: what is left of the window and what is right of it, by the forward
    and the backward pass of a hidden Markov model.

    Args:
        batch: of `tasks.problems.hidden.hide` over ids.
        first: (V,) probabilities of a window's first character.
        chain: (V, V) as `transitions` gives it.
    """
    size = len(first)
    known, places, asked = batch["known"], batch["known_places"], batch["asked_places"]
    length = places.shape[1] + asked.shape[1]
    # What a place may hold: anything where hidden, one character where visible.
    allowed = torch.ones(len(known), length, size, dtype=torch.float64)
    visible = torch.nn.functional.one_hot(known, size).double()
    allowed.scatter_(1, places[..., None].expand_as(visible), visible)
    forward, backward = torch.empty_like(allowed), torch.ones_like(allowed)
    forward[:, 0] = _normal(first * allowed[:, 0])
    for t in range(1, length):
        forward[:, t] = _normal((forward[:, t - 1] @ chain) * allowed[:, t])
    for t in range(length - 2, -1, -1):
        backward[:, t] = _normal((allowed[:, t + 1] * backward[:, t + 1]) @ chain.T)
    both = _normal(forward * backward)
    return both.gather(1, asked[..., None].expand(-1, -1, size)).log()


def _normal(x: Tensor) -> Tensor:
    return x / x.sum(-1, keepdim=True)
