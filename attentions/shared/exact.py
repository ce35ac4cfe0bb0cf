"""Softmax attention written out: the specification that fused forms are tested against."""

from __future__ import annotations

from torch import Tensor


def exact_softmax(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """(B, H, Lq, Lk) softmax weights of exp(scale q·k) over the keys where ``mask`` is True.

    A row that sees no key gets zero weights.
    """
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return scores.softmax(-1)
    # A row without keys has only -inf: softmax gives NaN there, which the second fill removes
    # from the gradient as well.
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def exact_softmax_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """(B, H, Lq, Dv) = exact_softmax(q, k) v, with the score matrix in memory."""
    return exact_softmax(q, k, mask, scale).to(v.dtype) @ v
