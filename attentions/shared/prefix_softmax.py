"""Running softmax means of scores that belong to keys alone, in linear time and at any depth.

    o_i = sum_{j<=i} exp(e_j) v_j / sum_{j<=i} exp(e_j)

Within chunks of c tokens the weights are written out. A chunk then counts as one token, whose score
is the logarithm of its mass and whose value is its mean, so what the chunks before it give is the
same problem with L / c tokens. A mean and the mean of what lies before are mixed in the proportion
of their masses: everything is a softmax or a sigmoid, and no sum can overflow or vanish.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 32
NO_MASS = -1e30
"""Logarithm of the mass of a masked key: in place of -inf, whose differences are not numbers."""


def prefix_softmax_means(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Means and logarithms of masses of every prefix.

    Args:
        scores: (..., L), in float32 at least; `NO_MASS` where a key is masked.
        values: (..., L, Dv) in the same dtype; zero where a key is masked.

    Returns:
        (..., L, Dv) means, zero where all keys are masked, and (..., L) log masses.
    """
    length = scores.shape[-1]
    if length <= _CHUNK:
        return _within(scores, values)
    padding = -length % _CHUNK
    scores = F.pad(scores, (0, padding), value=NO_MASS).unflatten(-1, (-1, _CHUNK))
    values = F.pad(values, (0, 0, 0, padding)).unflatten(-2, (-1, _CHUNK))
    means, mass = _within(scores, values)
    # Of whole chunks; those before a chunk end one earlier.
    before, before_mass = prefix_softmax_means(mass[..., -1], means[..., -1, :])
    before = F.pad(before[..., :-1, :], (0, 0, 1, 0))[..., None, :]
    before_mass = F.pad(before_mass[..., :-1], (1, 0), value=NO_MASS)[..., None]
    share = (mass - before_mass).sigmoid()[..., None]
    means = share * means + (1 - share) * before
    mass = torch.logaddexp(mass, before_mass)
    return means.flatten(-3, -2)[..., :length, :], mass.flatten(-2)[..., :length]


def _within(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The same for a few tokens, with the weights written out."""
    length = scores.shape[-1]
    later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    rows = scores[..., None, :].expand(*scores.shape, length).masked_fill(later, -torch.inf)
    return rows.softmax(-1) @ values, rows.logsumexp(-1)
