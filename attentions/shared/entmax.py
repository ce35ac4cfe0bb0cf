"""Alpha-entmax: maps from scores to weights of which some are exactly zero (Peters et al. 2019,
arXiv 1905.05702).

    p_j = max(0, (alpha - 1) z_j - tau)^(1 / (alpha - 1)),   tau such that sum_j p_j = 1

Alpha 1 is the limit softmax and 2 is sparsemax. Up to 2 the sum is a convex function of tau that
falls, so that Newton's method from the left, where only the largest score counts, climbs to the
root and never passes it. Derivatives need no tau: with s_j = p_j^(2 - alpha) where p_j > 0,

    dp = s * (dz - sum_j s_j dz_j / sum_j s_j)

which is symmetric in what comes in and what goes out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_STEPS = 100
"""Most that Newton's method takes: about ln(n) and six more are what it needs"""


def entmax(scores: Tensor, alpha: float) -> Tensor:
    """(..., L) weights of scores (..., L) in float32 at least; has derivatives of every order.

    Args:
        scores: -inf where hidden; a row of nothing else gets zeros.
        alpha: from 1 to 2. Close above 1 digits are lost, as a large power amplifies rounding.
    """
    if alpha == 1:
        hidden = scores == -torch.inf
        return scores.softmax(-1).masked_fill(hidden, 0.0)
    weights: Tensor = _Entmax.apply(scores, alpha)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return weights


def plain_entmax(scores: Tensor, alpha: float) -> Tensor:
    """The same by bisection, with nothing but operations that autograd follows.

    Two steps of Newton's method behind it, which change no digit, make tau a function of the
    scores: its derivatives up to the third are right.
    """
    if alpha == 1:
        return entmax(scores, alpha)
    scaled, power = _scaled(scores, alpha), 1 / (alpha - 1)
    with torch.no_grad():
        low = torch.full_like(scaled[..., :1], -1.0)
        high = torch.zeros_like(low)
        for _ in range(60):
            middle = (low + high) / 2
            enough = (scaled - middle).clamp(min=0).pow(power).sum(-1, keepdim=True) >= 1
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    seen = (scaled > -torch.inf).any(-1, keepdim=True)
    # Below the threshold there is no weight whichever way scores move.
    inside = (scaled > low) & seen
    scaled = torch.where(inside, scaled, low + 1)
    tau = low
    for _ in range(2):
        rest = scaled - tau
        total = rest.pow(power).masked_fill(~inside, 0.0).sum(-1, keepdim=True)
        slope = power * rest.pow(power - 1).masked_fill(~inside, 0.0).sum(-1, keepdim=True)
        tau = tau + torch.where(seen, total - 1, 0.0) / torch.where(seen, slope, 1.0)
    return (scaled - tau).pow(power).masked_fill(~inside, 0.0)


def _scaled(scores: Tensor, alpha: float) -> Tensor:
    """(alpha - 1) (z - max z), at most 0; -inf where hidden."""
    top = scores.amax(-1, keepdim=True)
    return (alpha - 1) * (scores - top.masked_fill(top == -torch.inf, 0.0))


@torch.no_grad()
def _weights(scores: Tensor, alpha: float) -> Tensor:
    """By Newton's method, until no row moves by more than rounding."""
    scaled, power = _scaled(scores, alpha), 1 / (alpha - 1)
    tau = torch.full_like(scaled[..., :1], -1.0)
    least = torch.finfo(scaled.dtype).eps
    for _ in range(_STEPS):
        rest = (scaled - tau).clamp_(min=0)
        slopes = rest if power == 2 else rest.pow(power - 1).masked_fill_(rest == 0, 0.0)
        total = (slopes * rest).sum(-1, keepdim=True)
        slope = (power * slopes.sum(-1, keepdim=True)).masked_fill_(total == 0, torch.inf)
        step = (total - 1) / slope
        tau = tau + step
        if bool((step <= 2 * least).all()):
            break
    return (scaled - tau).clamp_(min=0).pow_(power)


class _Entmax(torch.autograd.Function):
    """Keeps the weights alone."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, alpha: float) -> Tensor:
        weights = _weights(scores, alpha)
        ctx.alpha = alpha
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        some = weights > 0
        # A power of zero has no derivative, and where there is no weight none is asked for.
        share = torch.where(some, weights, 1.0).pow(2 - ctx.alpha).masked_fill(~some, 0.0)
        total = share.sum(-1, keepdim=True)
        mean = (share * gradients[0]).sum(-1, keepdim=True) / torch.where(total > 0, total, 1.0)
        return share * (gradients[0] - mean), None
