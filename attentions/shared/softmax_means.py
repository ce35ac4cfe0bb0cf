"""Softmax-weighted means of values and the mass under them: what slots, landmarks and random
features have in common.

    m_r = sum_j p_rj v_j,   p_rj = exp(a_rj - M_r),   M_r = log sum_j exp(a_rj)

A mechanism of linear cost that sums exp(...) over the keys can be written as two of these: each of
r slots takes the mean m_r over the keys, and each query the mean over the slots, with M_r among its
logits. All exponentials then lie in a softmax, so nothing overflows, no constant has to be
subtracted by hand and no denominator can vanish.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attentions.shared.first_order import first_derivatives_only


def softmax_means(
    logits: Tensor, values: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Means of the values under softmax(logits), and the logits' logsumexp; both differentiable.

    For the backward pass the weights are kept and the logits are not.

    Args:
        logits: (..., R, J), in float32 at least.
        values: (..., J, Dv).
        mask: broadcastable to (..., R, J), True where j counts; None: all do.

    Returns:
        (..., R, Dv) means in the dtype of the values, zero in a row without any j that counts, and
        (..., R) masses in the dtype of the logits, -inf there.
    """
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    means, mass = _SoftmaxMeans.apply(logits, values)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return means, mass


class _SoftmaxMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        weights = logits.softmax(-1)
        top = logits.amax(-1)
        empty = top == -math.inf
        if weights.shape[-1] and (top.is_cuda or empty.any()):
            weights.masked_fill_(empty[..., None], 0.0)
        # The largest weight is exp(top - mass), and at least 1 / J.
        mass = torch.where(empty, top, top - weights.amax(-1).log())
        means = weights.to(values.dtype) @ values
        ctx.save_for_backward(weights, values, means)
        return means, mass

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weights, values, means = ctx.saved_tensors
        grad_means, grad_mass = gradients
        grad_logits = grad_values = None
        if ctx.needs_input_grad[0]:
            # d mean_r / d a_rj = p_rj (v_j - m_r), d mass_r / d a_rj = p_rj
            own = grad_mass - (grad_means * means).sum(-1).to(grad_mass.dtype)
            grad_logits = (grad_means @ values.mT).to(weights.dtype)
            grad_logits = grad_logits.add_(own[..., None]).mul_(weights)
        if ctx.needs_input_grad[1]:
            grad_values = weights.to(values.dtype).mT @ grad_means
        return grad_logits, grad_values
