"""Where tokens stand on one axis: their times, or positions, or places in the sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.masks import valid_lengths
from cab import AttentionContext


def token_times(
    context: AttentionContext | None, length_q: int, length_k: int, cross: bool, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Of the queries and of the keys, (B or 1, Lq) and (B or 1, Lk), in the dtype of ``like``.

    For each side its time stamps, else its positions, else 0, 1, 2, ...; in self attention the
    queries are the last of the keys.
    """
    given = context or AttentionContext()
    keys = _first(given.key_times, given.key_positions, length_k, like)
    if not cross:
        return keys[:, length_k - length_q :], keys
    return _first(given.query_times, given.query_positions, length_q, like), keys


def query_places(
    length_q: int, length_k: int, cross: bool, key_mask: Tensor | None, device: torch.device
) -> Tensor:
    """(B or 1, Lq) place among the keys at which each query stands.

    In self attention its own; in cross attention all stand at the last valid key of the source, as
    if they came behind it: -1 where there is none.
    """
    if not cross:
        return torch.arange(length_k - length_q, length_k, device=device)[None]
    if key_mask is None:
        return torch.full((1, length_q), length_k - 1, device=device)
    return (valid_lengths(key_mask) - 1)[:, None].expand(-1, length_q)


def _first(times: Tensor | None, positions: Tensor | None, length: int, like: Tensor) -> Tensor:
    for given in (times, positions):
        if given is not None:
            return torch.atleast_2d(given).to(like)
    return torch.arange(length, device=like.device, dtype=like.dtype)[None]
