"""The scan of a diagonal recurrence: what every state with a decay of its own channels is made of.

    h_t = a_t ∘ h_(t-1) + x_t,   0 <= a_t <= 1

with factors a_t that are broadcast to the state: one for each number of it (S6, RAT), one for each
row or column of a matrix (gated linear attention), or one for all (retention, Mamba-2). A mechanism
whose state is large scans the states at the borders of its chunks and keeps to products of matrices
within them.

The sequence is cut into about sqrt(L) chunks of about sqrt(L) tokens. The states at the ends of all
chunks, as if each began at zero, are found together, one token of every chunk at a time; passing
them on gives the states that enter the chunks; a second pass from these gives all states. That is
O(sqrt(L)) steps of large tensors, and O(L) work. No factor is inverted and no logarithm taken, so
that nothing overflows however fast a state is forgotten. A state depends on nothing later, not even
in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_ONE_BY_ONE = 16
"""Up to this length chunks gain nothing."""


def decayed_scan(decay: Tensor, x: Tensor, initial: Tensor | None = None) -> Tensor:
    """All states h_t of h_t = decay_t ∘ h_(t-1) + x_t. Has derivatives of every order.

    Args:
        decay: (N, L, ...) factors in 0 .. 1, of as many dimensions as x and broadcastable to it.
        x: (N, L, ...) what each token adds, in the same dtype.
        initial: (N, ...) state before the first token; None: zeros.

    Returns:
        (N, L, ...)
    """
    if initial is None:
        initial = x.new_zeros(x.shape[0], *x.shape[2:])
    states: Tensor = _DecayedScan.apply(decay, x, initial, False)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return states


class _DecayedScan(torch.autograd.Function):
    """In reverse: h_t = decay_t ∘ h_(t+1) + x_t, with ``initial`` behind the last token."""

    @staticmethod
    def forward(decay: Tensor, x: Tensor, initial: Tensor, reverse: bool) -> Tensor:
        length = x.shape[1]
        states = torch.empty_like(x, memory_format=torch.contiguous_format)
        chunk = math.isqrt(length) if length > _ONE_BY_ONE else max(1, length)
        whole = length // chunk * chunk
        parts = [slice(0, whole), slice(whole, length)]
        for part in reversed(parts) if reverse else parts:
            if part.start < part.stop:
                width = min(chunk, part.stop - part.start)
                _by_chunks(decay[:, part], x[:, part], initial, states[:, part], width, reverse)
                initial = states[:, part.start if reverse else part.stop - 1]
        return states

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        decay, _, initial, ctx.reverse = inputs
        ctx.save_for_backward(decay, initial, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        decay, initial, states = ctx.saved_tensors
        if states.shape[1] == 0:
            return torch.zeros_like(decay), grad, torch.zeros_like(initial), None
        # What a state hands back comes from the one after it, under that one's factor. Rolling
        # brings a factor to the border that meets only zeros there.
        back = -1 if not ctx.reverse else 1
        grad_x: Tensor = _DecayedScan.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
            decay.roll(back, 1), grad, torch.zeros_like(initial), not ctx.reverse
        )
        if ctx.reverse:
            earlier, first = torch.cat([states[:, 1:], initial[:, None]], dim=1), -1
        else:
            earlier, first = torch.cat([initial[:, None], states[:, :-1]], dim=1), 0
        grad_decay = (grad_x * earlier).sum_to_size(decay.shape)
        return grad_decay, grad_x, decay[:, first] * grad_x[:, first], None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        tensors = [
            (x.unsqueeze(0) if dim is None else x.movedim(dim, 0)).expand(
                info.batch_size, *(-1,) * (x.ndim - (dim is not None))
            )
            for x, dim in zip(inputs[:3], in_dims[:3], strict=True)
        ]
        rows = [x.flatten(0, 1) for x in tensors]
        apply: Any = _DecayedScan.apply  # not annotated in torch
        out: Tensor = apply(*rows, inputs[3])
        return out.unflatten(0, (info.batch_size, -1)), 0


def _order(count: int, reverse: bool) -> Sequence[int]:
    return range(count - 1, -1, -1) if reverse else range(count)


def _by_chunks(
    decay: Tensor, x: Tensor, state: Tensor, states: Tensor, chunk: int, reverse: bool
) -> None:
    """Write the states of (N, L, ...) inputs whose length is a multiple of that of a chunk."""
    decay, x, states = (y.unflatten(1, (-1, chunk)) for y in (decay, x, states))
    entering = state[:, None]
    if x.shape[1] > 1:
        ends = torch.zeros_like(x[:, :, 0])
        for t in _order(chunk, reverse):
            ends = torch.addcmul(x[:, :, t], decay[:, :, t], ends)
        kept, entering = decay.prod(2), torch.empty_like(ends)
        for i in _order(ends.shape[1], reverse):
            entering[:, i] = state
            state = torch.addcmul(ends[:, i], kept[:, i], state)
    for t in _order(chunk, reverse):
        entering = torch.addcmul(x[:, :, t], decay[:, :, t], entering, out=states[:, :, t])
