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


def sees_a_key(pattern: Pattern, length_q: int, context: AttentionContext | None) -> Tensor | None:
    """(B, 1, Lq or 1, 1) bool, True where a row sees a key; None where there is no mask.

    What `visible` says of whole rows, without the (Lq, Lk) mask.
    """
    if context is None or context.key_mask is None:
        return None
    mask = context.key_mask
    if pattern is not Pattern.CAUSAL_SELF:
        return mask.any(-1)[:, None, None, None]
    seen = mask.cumsum(-1)[:, mask.shape[-1] - length_q :]
    return (seen > 0)[:, None, :, None]


def hidden_as_bias(key_mask: Tensor | None, like: Tensor) -> Tensor | None:
    """(B, Lk) scores to add to those of keys: -inf where masked, else 0, in float32 at least."""
    if key_mask is None:
        return None
    dtype = torch.promote_types(like.dtype, torch.float32)
    bias = torch.zeros(key_mask.shape, dtype=dtype, device=key_mask.device)
    return bias.masked_fill_(~key_mask, float("-inf"))


def valid_lengths(mask: Tensor) -> Tensor:
    """(B,) places of a row (B, L) up to its last valid token; 0 where there is none."""
    places = torch.arange(1, mask.shape[-1] + 1, device=mask.device)
    return (mask * places).amax(-1)


def not_later(query: Tensor, key: Tensor) -> Tensor:
    """Whether the position of a key is none after the query's."""
    return key <= query
