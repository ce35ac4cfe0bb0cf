"""The selective scan of S6 (Gu and Dao 2023, arXiv 2312.00752, section 3): a diagonal linear system
whose step, input and output depend on the token.

    h_t = exp(-Δ_t A) ∘ h_(t-1) + (Δ_t ∘ x_t) B_t^T     (Dv, N),   y_t = h_t C_t

The decay of a state's number depends on its row and its column, so the states are written out, with
`decayed_scan`, but for one segment of tokens at a time: from one to the next only the last state is
kept, and the backward pass computes a segment's states again. O(L Dv N) time and O(L Dv) memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.decayed_scan import decayed_scan
from attentions.shared.recompute import recomputed

_NUMBERS = 1 << 20
"""Of the states of a segment"""
_SHORTEST = 16
"""Tokens in a segment"""


def selective_scan(
    step: Tensor, x: Tensor, b: Tensor, c: Tensor | None, rate: Tensor, initial: Tensor
) -> tuple[Tensor | None, Tensor]:
    """Outputs y of all tokens, and the last state.

    Args:
        step: (R, L, Dv) Δ, at least zero; a token with none leaves the state as it is.
        x: (R, L, Dv). b: (R, L, N).
        c: (R, L, N), or None: no outputs.
        rate: (R, Dv, N) A, positive.
        initial: (R, Dv, N) state before the first token.

    Returns:
        (R, L, Dv) or None, and (R, Dv, N).
    """
    length = x.shape[1]
    size = max(_SHORTEST, _NUMBERS // max(1, initial.numel()))
    outputs, state = [], initial
    for first in range(0, length, size):
        part = slice(first, first + size)
        own = [y[:, part] for y in (step, x, b)]
        if c is None:
            state = recomputed(_last_state, *own, rate, state)
        else:
            y, state = recomputed(_outputs, *own, c[:, part], rate, state)
            outputs.append(y)
    if c is None:
        return None, state
    return torch.cat(outputs, dim=1) if outputs else torch.zeros_like(x), state


def _states(step: Tensor, x: Tensor, b: Tensor, rate: Tensor, state: Tensor) -> Tensor:
    """(R, L, Dv, N)."""
    decay = (step[..., None] * -rate[:, None]).exp()
    return decayed_scan(decay, (step * x)[..., None] * b[..., None, :], state)


def _last_state(step: Tensor, x: Tensor, b: Tensor, rate: Tensor, state: Tensor) -> Tensor:
    return _states(step, x, b, rate, state)[:, -1]


def _outputs(
    step: Tensor, x: Tensor, b: Tensor, c: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, ...]:
    states = _states(step, x, b, rate, state)
    # The last state as a copy, so that all of them can go.
    return (states @ c[..., None])[..., 0], states[:, -1].clone()
