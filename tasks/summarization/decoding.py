"""Greedy decoding and the overlap of its output with the reference."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from cab import Batch
from tasks.summarization.model import Summarizer
from tasks.summarization.vocabulary import END, PADDING, START, UNKNOWN


def greedy(model: Summarizer, batch: Batch, length: int) -> list[list[int]]:
    """The likeliest token at each step, at most ``length``, up to END (not included).

    The whole prefix is fed again at each step, so that mechanisms without a decode step take part.
    """
    memory, mask = model.encode(batch)
    tokens = torch.full((len(memory), 1), START, device=memory.device)
    for _ in range(length):
        scores = model.logits(model.decode(tokens, memory, mask)[:, -1])
        scores[:, [PADDING, START, UNKNOWN]] = float("-inf")
        tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], dim=1)
        if (tokens == END).any(1).all():
            break
    return texts(tokens)


def texts(tokens: Tensor) -> list[list[int]]:
    """Token lists of (B, T) ids that begin with START, without START, END and what follows."""
    rows: list[list[int]] = tokens[:, 1:].tolist()
    return [row[: row.index(END)] if END in row else row for row in rows]


def rouge_l(candidate: Sequence[Hashable], reference: Sequence[Hashable]) -> float:
    """ROUGE-L F1 in percent (Lin 2004): 2 LCS / (words of both), LCS the longest common
    subsequence.
    """
    if not candidate or not reference:
        return 0.0
    previous = [0] * (len(reference) + 1)
    for word in candidate:
        current = [0]
        for j, other in enumerate(reference):
            match = previous[j] + 1 if word == other else max(current[j], previous[j + 1])
            current.append(match)
        previous = current
    return 200.0 * previous[-1] / (len(candidate) + len(reference))
