"""Parts of a whole are hidden and asked for: patches of a picture, frames of a sound, characters.

A whole is P parts in a fixed order. A batch holds the visible ones with their places, the places of
the hidden ones, and apart from them, as the target, what stands there. Both are in the order of
their places.

Shapes: B wholes, P parts, M hidden, L = P - M visible, C numbers of a part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab import AttentionContext, Batch


def draw_hidden(batch: int, parts: int, hidden: int, generator: torch.Generator) -> Tensor:
    """(B, P) bool, True where hidden: ``hidden`` of the parts, drawn uniformly for each row."""
    chosen = torch.rand(batch, parts, generator=generator).topk(hidden).indices
    return torch.zeros(batch, parts, dtype=torch.bool).scatter_(1, chosen, True)


def hide(wholes: Tensor, hidden: Tensor) -> Batch:
    """Take wholes apart.

    Args:
        wholes: (B, P, C) or (B, P).
        hidden: (B, P) bool, as many True in every row.

    Returns:
        ``known`` (B, L, C) or (B, L) and ``known_places`` (B, L) int64, ``asked_places`` (B, M)
        int64, ``target`` (B, M, C) or (B, M).
    """
    asked = _places(hidden)
    known = _places(~hidden)
    return {
        "known": taken(wholes, known),
        "known_places": known,
        "asked_places": asked,
        "target": taken(wholes, asked),
    }


def taken(x: Tensor, places: Tensor) -> Tensor:
    """Parts (B, P, ...) at (B, N) places: (B, N, ...)."""
    return x[torch.arange(len(x), device=x.device)[:, None], places]


def filled(batch: Batch, answers: Tensor) -> Tensor:
    """(B, P, ...) the wholes again, with ``answers`` (B, M, ...) in the hidden places."""
    parts = torch.cat([batch["known"], answers.to(batch["known"])], dim=1)
    places = torch.cat([batch["known_places"], batch["asked_places"]], dim=1)
    return taken(parts, places.argsort(1))


def placed(batch: Batch) -> AttentionContext:
    """What slots are told of a batch: the places of queries and keys, as positions."""
    return AttentionContext(
        query_positions=batch["asked_places"], key_positions=batch["known_places"]
    )


def _places(mask: Tensor) -> Tensor:
    """(B, N) places of True, in order; every row has as many."""
    return mask.nonzero()[:, 1].view(len(mask), -1)
