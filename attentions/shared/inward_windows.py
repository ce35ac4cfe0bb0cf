"""Windows that are pushed inward at the borders of the sequence: every query sees as many keys.

The rule of neighbourhood attention (Hassani et al. 2024, arXiv 2403.04690; stride: arXiv
2504.16922). Queries in segments of s share the window of a leader:

    leader = min(first of the segment + floor(s / 2), n - 1)
    window = leader - left .. leader + right, moved to lie in 0 .. n - 1

n is the length of the row. Where n is less than the width of the window, all keys are seen.
Windows inside the sequence are those of `attentions.shared.windows`; the queries whose windows are
moved all see the first keys, or the last.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.windows import windowed_softmax_attention


def inward_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    left: int,
    right: int,
    stride: int = 1,
) -> Tensor:
    """Softmax attention of each query over a window of left + 1 + right keys.

    Args:
        q: (B, H, L, D). k: (B, H, L, D). v: (B, H, L, Dv).
        key_mask: (B, L) bool, True where valid, or None. What is masked must be finite.
        lengths: (B,) n of each row; None: L. Keys from n on must be masked.
        left: keys before the leader.
        right: keys after the leader.
        stride: s, at most left + 1 + right.

    Returns:
        (B, H, L, Dv); zeros in a row that sees nothing, and from n on.
    """
    length = k.shape[-2]
    if lengths is not None:
        beyond = torch.arange(length, device=q.device) >= lengths[:, None]
        out = _within(q, k, v, key_mask, lengths, left, right, stride)
        return out.masked_fill(beyond[:, None, :, None], 0.0)
    return _within(q, k, v, key_mask, lengths, left, right, stride)


def _within(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    lengths: Tensor | None,
    left: int,
    right: int,
    stride: int,
) -> Tensor:
    """The same; outputs from n on are arbitrary."""
    length, width, half = k.shape[-2], left + 1 + right, stride // 2
    if length <= width:
        return _over_all(q, k, v, key_mask)
    inside = windowed_softmax_attention(
        q, k, v, key_mask, before=left - half, after=right + half - stride + 1, segment=stride
    )
    head = -(-(left - half) // stride) * stride
    parts = []
    if head:
        mask = None if key_mask is None else key_mask[:, :width]
        parts.append(_over_all(q[:, :, :head], k[:, :, :width], v[:, :, :width], mask))
    if lengths is None:
        start = -(-(length - right - half) // stride) * stride
        parts.append(inside[:, :, head:start])
        if start < length:
            keys, values = (x[:, :, length - width :] for x in (k, v))
            mask = None if key_mask is None else key_mask[:, length - width :]
            parts.append(_over_all(q[:, :, start:], keys, values, mask))
        return torch.cat(parts, dim=-2)
    out = torch.cat([*parts, inside[:, :, head:]], dim=-2)
    return _with_tails(out, q, k, v, key_mask, lengths, right + half, width, stride)


def window_bounds(
    lengths: Tensor, count: int, *, left: int, right: int, stride: int = 1
) -> tuple[Tensor, Tensor]:
    """First key of the window of each of ``count`` queries and the one after its last, (B, count).

    ``lengths`` are n of each row, (B,).
    """
    n, query = lengths[:, None], torch.arange(count, device=lengths.device)
    leader = torch.minimum(query - query % stride + stride // 2, n - 1)
    start = torch.minimum((leader - left).clamp(min=0), (n - left - 1 - right).clamp(min=0))
    return start, torch.minimum(start + left + 1 + right, n)


def _with_tails(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    lengths: Tensor,
    most: int,
    width: int,
    stride: int,
) -> Tensor:
    """``out`` with the last queries of each row, at most ``most``, over its last keys."""
    if not most:
        return out
    queries = _last(lengths, most)
    keys = _last(lengths, width)
    mask = None if key_mask is None else key_mask.gather(1, keys)
    tail = _over_all(_rows(q, queries), _rows(k, keys), _rows(v, keys), mask)
    if stride > 1:
        # Segments whose windows lie inside may be among them.
        first = -((most - lengths[:, None]) // stride) * stride
        tail = torch.where((queries >= first)[:, None, :, None], tail, _rows(out, queries))
    index = queries[:, None, :, None].expand_as(tail)
    return out.scatter(2, index, tail)


def _last(lengths: Tensor, count: int) -> Tensor:
    """(B, count) places of the last tokens of each row; the first ones of a shorter row."""
    places = torch.arange(count, device=lengths.device)
    return (lengths[:, None] - count).clamp(min=0) + places


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """(B, H, n, D) of tokens (B, H, L, D) at places (B, n)."""
    index = places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1])
    return x.gather(2, index)


def _over_all(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax over all keys, of no more queries than keys; in tiles."""
    whole = k.shape[-2]
    return windowed_softmax_attention(q, k, v, key_mask, before=whole, after=whole)
