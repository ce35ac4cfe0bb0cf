"""The mean of the tokens that a row sees: of all of them, or where causal of its prefix."""

from __future__ import annotations

import torch
from torch import Tensor

from cab import AttentionContext, Pattern


def visible_mean(
    x: Tensor, pattern: Pattern, length_q: int, context: AttentionContext | None
) -> Tensor:
    """Means over the keys that each row sees, in float32 at least.

    Args:
        x: (B, H, Lk, D); zero where a key is masked.
        pattern: in causal self attention row i sees the keys up to i + Lk - Lq.
        length_q: Lq.
        context: whose key mask counts; None: none.

    Returns:
        (B, H, Lq, D), or (B, H, 1, D) where all rows see the same; zeros in a row that sees no key.
    """
    count = visible_count(x, pattern, length_q, context)
    return visible_sum(x, pattern, length_q) / count.clamp(min=1)


def visible_sum(x: Tensor, pattern: Pattern, length_q: int) -> Tensor:
    """Sums over the keys that each row sees, likewise."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if pattern is not Pattern.CAUSAL_SELF:
        return x.sum(-2, keepdim=True)
    return x.cumsum(-2)[..., x.shape[-2] - length_q :, :]


def visible_count(
    x: Tensor, pattern: Pattern, length_q: int, context: AttentionContext | None
) -> Tensor:
    """(B or 1, 1, Lq or 1, 1) how many keys each row sees, in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if context is None or context.key_mask is None:
        count = torch.ones(1, x.shape[-2], dtype=dtype, device=x.device)
    else:
        count = context.key_mask.to(dtype)
    return visible_sum(count[:, None, :, None], pattern, length_q)
