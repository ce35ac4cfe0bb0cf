"""Segments of tokens as a matrix, for rows of a batch whose masks differ."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_averaging(mask: Tensor, segments: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The definition of the segments, as weights of the tokens.

    Args:
        mask: (B, L) bool, True where a token is valid.
        segments: at most this many; never more than L.
        dtype: of the matrix.

    Returns:
        (B, 1, r, L), whose product with tokens (B, H, L, D) are the means of the r segments, zero
        for an empty one; and (B, 1, r), how many valid tokens each has.
    """
    length = mask.shape[-1]
    r = min(segments, length)
    position = torch.arange(length, device=mask.device)
    count = ((position + 1) * mask).amax(-1, keepdim=True)
    short = r - count % r
    size = count // r
    beyond = position - short * size
    segment = torch.where(beyond < 0, position // size.clamp(min=1), short + beyond // (size + 1))
    inside = segment[:, None, :] == torch.arange(r, device=mask.device)[:, None]
    inside = (inside & mask[:, None, :])[:, None]
    sizes = inside.sum(-1)
    return inside.to(dtype) / sizes.clamp(min=1)[..., None], sizes
