"""Forecasts drawn token by token, and how good they are."""

from __future__ import annotations

import torch
from torch import Tensor

from cab import Batch
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.encoder_decoder import EncoderDecoder
from tasks.summarization.vocabulary import START


def sampled(
    model: EncoderDecoder, batch: Batch, steps: int, count: int, generator: torch.Generator
) -> Tensor:
    """(B, count, steps) bins, drawn from what the model says, each given those before it.

    The whole prefix is fed again at each step, so that mechanisms without a decode step take part.
    """
    memory, mask = (x.repeat_interleave(count, 0) for x in model.encode(batch))
    tokens = torch.full((len(memory), 1), START, device=memory.device)
    for _ in range(steps):
        scores = model.logits(model.decode(tokens, memory, mask)[:, -1])
        odds = scores[:, FIRST_TOKEN:].float().softmax(-1).cpu()
        drawn = FIRST_TOKEN + torch.multinomial(odds, 1, generator=generator)
        tokens = torch.cat([tokens, drawn.to(tokens.device)], dim=1)
    return (tokens[:, 1:] - FIRST_TOKEN).cpu().unflatten(0, (-1, count))


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """(B, A) continuous ranked probability score E|X - y| - E|X - X'| / 2 of (B, S, A) samples.

    X and X' are drawn from the samples, X' anew (Gneiting and Raftery 2007, equation 21): that of
    the samples' own distribution. Of one sample it is the absolute error.
    """
    error = (samples - truth[:, None]).abs().mean(1)
    spread = (samples[:, :, None] - samples[:, None]).abs().mean((1, 2))
    return error - spread / 2
