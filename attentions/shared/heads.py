"""Heads as a layer hands them over: (B, H, L, D) views of projections that lie in memory token by
token, (B, L, H, D).

Copied into head-by-head order, three inputs on the way in and as many gradients on the way back
cost more than the products of a mechanism of linear cost. A CPU's products take rows that lie apart
as they are, so nothing is copied.
"""

from __future__ import annotations

import torch
from torch import Tensor


def empty_heads(like: Tensor, width: int) -> Tensor:
    """(B, H, L, width) in the order of a projection, to be filled in: for outputs and gradients.

    Args:
        like: (B, H, L, D).
        width: of a head.
    """
    batch, heads, length = like.shape[:3]
    return like.new_empty(batch, length, heads, width).transpose(1, 2)


def multiply_heads(
    a: Tensor, b: Tensor, out: Tensor, alpha: float = 1.0, *, add: bool = False
) -> Tensor:
    """Put alpha a @ b into ``out``, or add it, and return it; no argument is copied on a CPU.

    Args:
        a: (B, H, n, m). b: (B, H, m, p). out: (B, H, n, p), of the same dtype.
        alpha: a factor of the product.
        add: to what ``out`` holds.
    """
    beta = 1.0 if add else 0.0
    if a.is_cuda:
        # There a copy costs less than a launch for each sequence.
        flat = (x.reshape(-1, *x.shape[-2:]) for x in (out, a, b))
        product = torch.baddbmm(*flat, beta=beta, alpha=alpha)
        return out.copy_(product.unflatten(0, out.shape[:2]))
    # One product takes one distance between its matrices: those of a sequence or those of a head.
    whole = 0 if a.shape[0] <= a.shape[1] else 1
    for own_out, own_a, own_b in zip(*(x.unbind(whole) for x in (out, a, b)), strict=True):
        torch.baddbmm(own_out, own_a, own_b, beta=beta, alpha=alpha, out=own_out)
    return out
