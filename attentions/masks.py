"""Which keys a query may see, as one boolean mask; the exact mechanisms and references share it."""

from __future__ import annotations

import torch
from torch import Tensor

from cab import AttentionContext, Pattern


def causal_mask(length_q: int, length_k: int, device: torch.device | None = None) -> Tensor:
    """(Lq, Lk) bool, True where key j <= query i; bottom-right aligned: query i stands at key
    position i + Lk - Lq.
    """
    query = torch.arange(length_q, device=device)[:, None] + (length_k - length_q)
    return torch.arange(length_k, device=device)[None, :] <= query


def visible(
    pattern: Pattern,
    length_q: int,
    length_k: int,
    context: AttentionContext | None,
    device: torch.device | None = None,
) -> Tensor | None:
    """Mask of the visible keys, broadcastable to (B, H, Lq, Lk), or None where all are visible."""
    mask = None
    if context is not None and context.key_mask is not None:
        mask = context.key_mask[:, None, None, :]
    if pattern is Pattern.CAUSAL_SELF:
        causal = causal_mask(length_q, length_k, device)
        mask = causal if mask is None else mask & causal
    return mask
