"""A point near the keys, for second moments that rounding does not eat."""

from __future__ import annotations

import torch
from torch import Tensor

_SAMPLE = 9


def centre_of(k: Tensor, key_mask: Tensor | None) -> Tensor:
    """(N, 1, D) median of the first valid keys; constant under differentiation.

    Moving keys and queries by one vector changes neither softmax weights nor local fits. It does
    change rounding: a covariance is the difference of two moments, and where the keys lie far from
    the origin both are large. The median of a few keys is near them all, whatever an attention
    sink among them does; and as only the first few enter, what comes later cannot reach an earlier
    row even through rounding.

    Args:
        k: (N, Lk, D).
        key_mask: (N, Lk) bool, True where valid, or None.
    """
    with torch.no_grad():
        if k.shape[1] == 0:
            return k.new_zeros(k.shape[0], 1, k.shape[2])
        if key_mask is None:
            ordered = k[:, :_SAMPLE].sort(1).values
            return ordered[:, (ordered.shape[1] - 1) // 2, None]
        first = key_mask.byte().argsort(dim=1, descending=True, stable=True)[:, :_SAMPLE]
        valid = key_mask.gather(1, first)
        sample = k.gather(1, first[..., None].expand(-1, -1, k.shape[2]))
        ordered = sample.masked_fill(~valid[..., None], float("inf")).sort(1).values
        count = valid.sum(1)[:, None, None]
        middle = ((count - 1).clamp(min=0) // 2).expand(-1, -1, k.shape[2])
        return ordered.gather(1, middle).masked_fill(count == 0, 0.0)
