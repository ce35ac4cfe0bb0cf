"""Looking a value up by its key: what the tasks on recall share.

Shapes: B problems, L tokens of a stream, M questions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab.analysis import Evidence


def distinct(rows: int, of: int, count: int, generator: torch.Generator) -> Tensor:
    """(rows, count) uniform draws from 0 .. of - 1 without replacement, in random order."""
    return torch.rand(rows, of, generator=generator).argsort(-1)[:, :count]


def look_up(stream: Tensor, read: Tensor) -> Tensor:
    """(B, M) the tokens behind the first occurrence of the tokens at ``read``: what recalls all."""
    asked = stream.gather(1, read)
    first = (stream[:, None, :] == asked[..., None]).to(torch.uint8).argmax(-1)
    return stream.gather(1, first + 1)


def stream_evidence(stream: Tensor, read: Tensor) -> Evidence:
    """Where `look_up` finds what is asked for at ``read``."""
    asked = stream.gather(1, read)
    first = (stream[:, None, :] == asked[..., None]).to(torch.uint8).argmax(-1)
    return Evidence(read, first + 1, stream.shape[1])


def source_evidence(keys: Tensor, asked: Tensor) -> Evidence:
    """Where a source of pairs with ``keys`` (B, P) has the keys ``asked`` (B, M) for, by queries
    that are the questions.
    """
    places = torch.arange(asked.shape[1], device=asked.device).expand_as(asked)
    found = (keys[:, None, :] == asked[..., None]).to(torch.uint8).argmax(-1)
    return Evidence(places, found, keys.shape[1])


def logits_everywhere(model: nn.Module, tokens: Tensor) -> Tensor:
    """(B, L, V) what a `tasks.backbones.recall.StreamRecall` says at every place, asked or not."""
    logits: Tensor = model(
        tokens, torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    )
    return logits
