"""Block-banded attention: every query sees a window of keys, in time and memory O(L w)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def banded_softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    *,
    before: int,
    after: int,
) -> Tensor:
    """Softmax attention of query i over keys i - before .. i + after; out-of-range keys are absent.

    Queries and keys are cut into blocks of max(before, after) tokens, so that a block of queries
    meets at most three neighbouring blocks of keys, and one batched product does them all.

    Args:
        q: (B, H, L, D). k: (B, H, L, D). v: (B, H, L, Dv).
        key_mask: (B, L) bool, True where valid, or None.
        before: keys before the query's own, >= 0.
        after: keys after it, >= 0.

    Returns:
        (B, H, L, Dv); zeros in a row that sees no key.
    """
    length = q.shape[-2]
    block = min(max(before, after, 16), length)
    left, right = -(-before // block), -(-after // block)
    padding = -length % block
    blocks = (length + padding) // block
    span = (left + 1 + right) * block

    def gather(x: Tensor) -> Tensor:
        """(B, H, blocks, span, D): the keys that each block of queries may see."""
        padded = F.pad(x, (0, 0, left * block, right * block + padding))
        return padded.unfold(-2, span, block).transpose(-1, -2)

    queries = F.pad(q, (0, 0, 0, padding)).unflatten(-2, (blocks, block))
    scores = queries @ gather(k).transpose(-1, -2) * q.shape[-1] ** -0.5

    i = torch.arange(block, device=q.device)[:, None]
    j = torch.arange(span, device=q.device)[None, :] - left * block
    band = (j >= i - before) & (j <= i + after)
    position = torch.arange(blocks, device=q.device)[:, None] * block + j
    mask = band & ((position >= 0) & (position < length))[:, None, :]
    if key_mask is not None:
        valid = F.pad(key_mask, (left * block, right * block + padding))
        mask = mask & valid.unfold(-1, span, block)[:, None, :, None, :]
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).masked_fill(~mask, 0.0)
    return (weights.to(v.dtype) @ gather(v)).flatten(-3, -2)[..., :length, :]
