"""That a mechanism computes what its definition says in float64, before its time counts."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.lla.gpu_entries import Entry, Inputs, Operation, draw

_OUTPUT_TOLERANCE, _GRADIENT_TOLERANCE = 2e-2, 4e-2
"""Relative to the largest number of the exact result: bfloat16 rounds by 4e-3, and softmax weights
in it add up to more; a wrong kernel is off by far more."""
_ROWS = 16
_HEADS, _LENGTH = 2, 256


def output_problem(operation: Operation, inputs: Inputs, out: Tensor) -> str | None:
    """What is wrong with a timed call's output, in a slice of it: some rows of the last head.

    Args:
        operation: that was called.
        inputs: that it was called on.
        out: (1, H, Lq, D) that it gave.
    """
    length_q, length_k = inputs.q.shape[2], inputs.k.shape[2]
    count = min(_ROWS, length_q)
    rows = torch.linspace(0, length_q - 1, count, dtype=torch.float64).round().long()
    rows = rows.to(inputs.q.device)
    q, k, v, x = (t.detach()[:, -1:].double() for t in inputs)
    mask = _causal_mask(rows, length_q, length_k)
    with torch.no_grad():
        want = operation.exact(Inputs(q[:, :, rows], k, v, x[:, :, rows]), mask)
    return _problem("output", out.detach()[:, -1:, rows], want, _OUTPUT_TOLERANCE)


def gradient_problem(entry: Entry, dim: int, length: int, like: Tensor) -> str | None:
    """What is wrong with gradients at a small length; ``like`` has the device and the dtype."""
    length = min(length, _LENGTH)
    operation = entry.build(_HEADS, dim, like.device)
    inputs = draw(_HEADS, length, dim, "forward_backward", like.device, like.dtype)
    exact = Inputs(*(t.detach().double().requires_grad_() for t in inputs))
    gradient = torch.randn_like(inputs.q)
    operation.parallel(inputs).backward(gradient)
    rows = torch.arange(length, device=like.device)
    operation.exact(exact, _causal_mask(rows, length, length)).backward(gradient.double())
    for name, got, want in zip(Inputs._fields, inputs, exact, strict=True):
        if want.grad is None:
            continue
        if got.grad is None:
            return f"no gradient of {name}"
        problem = _problem(f"gradient of {name}", got.grad, want.grad, _GRADIENT_TOLERANCE)
        if problem:
            return problem
    return None


def _causal_mask(rows: Tensor, length_q: int, length_k: int) -> Tensor:
    keys = torch.arange(length_k, device=rows.device)
    return keys <= rows[:, None] + (length_k - length_q)


def _problem(what: str, got: Tensor, want: Tensor, tolerance: float) -> str | None:
    error = ((got.double() - want).abs().max() / want.abs().max().clamp_min(1e-12)).item()
    return None if error <= tolerance else f"{what} is off by {error:.1e} of its size"
