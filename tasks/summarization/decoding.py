"""Greedy decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.summarization.encoder_decoder import EncoderDecoder
from tasks.summarization.vocabulary import END, PADDING, START, UNKNOWN


def greedy(model: EncoderDecoder, batch: Batch, longest: int, shortest: int = 0) -> list[list[int]]:
    """The likeliest token at each step, up to END (not included).

    The whole prefix is fed again at each step, so that mechanisms without a decode step take part.

    Args:
        model: in eval mode.
        batch: of B documents.
        longest: tokens after which an output is cut.
        shortest: tokens before which END is not taken.
    """
    memory, mask = model.encode(batch)
    tokens = torch.full((len(memory), 1), START, device=memory.device)
    for step in range(longest):
        scores = model.logits(model.decode(tokens, memory, mask)[:, -1])
        scores[:, [PADDING, START, UNKNOWN]] = float("-inf")
        if step < shortest:
            scores[:, END] = float("-inf")
        tokens = torch.cat([tokens, scores.argmax(-1, keepdim=True)], dim=1)
        if (tokens == END).any(1).all():
            break
    return texts(tokens)


def texts(tokens: Tensor) -> list[list[int]]:
    """Token lists of (B, T) ids that begin with START, without START, END and what follows."""
    rows: list[list[int]] = tokens[:, 1:].tolist()
    return [row[: row.index(END)] if END in row else row for row in rows]
