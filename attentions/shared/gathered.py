"""Sums of a few values for each query, by index: neither a matrix of weights nor all of the values
that are gathered are ever in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attentions.shared.first_order import first_derivatives_only


def gathered_sums(values: Tensor, weights: Tensor, index: Tensor) -> Tensor:
    """(B, H, Lq, Dv) sum_n weights[..., n] · values[..., index[..., n], :].

    Args:
        values: (B, H, Lk, Dv), in float32 at least.
        weights: (B, H, Lq, n), in the same dtype.
        index: (B or 1, Lq, n), in 0 .. Lk - 1.
    """
    out: Tensor = _GatheredSums.apply(values, weights, index)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return out


def gathered(x: Tensor, index: Tensor) -> Tensor:
    """(B, H, Lq, n, D) the tokens (B, H, Lk, D) at an index (B or 1, Lq, n)."""
    rows = row_of_each_head(x, index)
    return x.flatten(0, 2)[rows].unflatten(0, (*x.shape[:2], *index.shape[1:]))


def row_of_each_head(x: Tensor, index: Tensor) -> Tensor:
    """(B H Lq n,) places of an index among all B H Lk tokens of x."""
    batch, heads, length = x.shape[:3]
    first = torch.arange(batch * heads, device=index.device).view(batch, heads, 1, 1) * length
    return (first + index[:, None]).flatten()


class _GatheredSums(torch.autograd.Function):
    """One value of every query at a time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(values, weights, index)
        out = values.new_zeros(*weights.shape[:3], values.shape[-1])
        flat = values.flatten(0, 2)
        for n in range(index.shape[-1]):
            rows = row_of_each_head(values, index[..., n, None])
            out.addcmul_(flat[rows].view_as(out), weights[..., n, None])
        return out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, weights, index = ctx.saved_tensors
        (grad,) = gradients
        flat = values.flatten(0, 2)
        grad_values, grad_weights = torch.zeros_like(flat), torch.empty_like(weights)
        for n in range(index.shape[-1]):
            rows = row_of_each_head(values, index[..., n, None])
            if ctx.needs_input_grad[1]:
                torch.sum(flat[rows].view_as(grad) * grad, -1, out=grad_weights[..., n])
            grad_values.index_add_(0, rows, (weights[..., n, None] * grad).flatten(0, 2))
        return grad_values.view_as(values), grad_weights if ctx.needs_input_grad[1] else None, None
