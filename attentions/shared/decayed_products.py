"""Products of rows and columns under decays that lie between them, within a chunk of tokens.

    P_ij = sum_d x_id y_jd exp(r_id - c_jd)   where row i sees column j, else 0

with logarithms r and c of what has decayed up to a row and up to a column, so that r - c <= 0 where
it counts. Where each channel decays by itself the factors exp(r) and exp(-c) would overflow, as c
falls without bound. So rows are taken in blocks, and both factors from where a block begins:
columns before it are read as x exp(r - start) · y exp(start - c), neither factor above one (the
second level of chunks of Yang et al. 2024, arXiv 2312.06635). Within the block both
are taken from its middle, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attentions.shared.first_order import first_derivatives_only

_BLOCK = 16
"""Columns of a block, where channels decay by themselves"""
LEAST = -80.0
"""Logarithm of the least factor of a write: of what it leaves, nothing is seen in any dtype. Eight
of them in a row are within the range of float64, in which the factors of a block are computed"""


def decayed_products(
    rows: list[Tensor],
    columns: Tensor,
    at_rows: Tensor | None,
    at_columns: Tensor | None,
    visible: Tensor,
) -> list[Tensor]:
    """P for several kinds of rows at the same places.

    Args:
        rows: each (..., R, D).
        columns: (..., C, D), C a multiple of R: with each row come its C / R columns.
        at_rows: (..., R, 1 or D) logarithms r; None: nothing decays.
        at_columns: (..., C, 1 or D) c, falling.
        visible: (R, C) bool: what row i sees, no column of a later row.

    Returns:
        Each (..., R, C).
    """
    if at_rows is None or at_columns is None:
        return [(x @ columns.mT).masked_fill(~visible, 0.0) for x in rows]
    if at_rows.shape[-1] == 1:
        between = (at_rows - at_columns.mT).masked_fill(~visible, -math.inf)
        factors = between.to(columns.dtype).exp()
        return [(x @ columns.mT) * factors for x in rows]
    apply: Any = _ByChannel.apply  # not annotated in torch
    products: Tensor = apply(torch.stack(rows, dim=-3), columns, at_rows, at_columns)
    return list(products.masked_fill(~visible, 0.0).unbind(-3))


def products_share(length: int) -> float:
    """Share of all pairs of a chunk that are multiplied where channels decay by themselves."""
    size = min(_BLOCK, length)
    return (length + size) / (2 * length)


class _ByChannel(torch.autograd.Function):
    """Of rows (..., K, R, D), K kinds, and logarithms in float64; (..., K, R, C), and where a row
    comes before a column of its block, products that are not used.

    The gradients of logarithms follow from the others: P_ij depends on x_i exp(r_i) and on
    y_j exp(-c_j) alone.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, at_rows: Tensor, at_columns: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, columns, at_rows, at_columns)
        products = rows.new_zeros(*rows.shape[:-1], columns.shape[-2])
        for own, seen, after, before in _factors(rows, at_rows, at_columns):
            x = rows[..., own, :] * after[..., None, :, :]
            y = columns[..., seen, :] * before
            products[..., own, seen] = (x.flatten(-3, -2) @ y.mT).view_as(products[..., own, seen])
        return products

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        rows, columns, at_rows, at_columns = ctx.saved_tensors
        to_rows, to_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        for own, seen, after, before in _factors(rows, at_rows, at_columns):
            x = (rows[..., own, :] * after[..., None, :, :]).flatten(-3, -2)
            y = columns[..., seen, :] * before
            g = grad[..., own, seen].flatten(-3, -2).to(after.dtype)
            back = (g @ y).unflatten(-2, (rows.shape[-3], -1)) * after[..., None, :, :]
            to_rows[..., own, :] += back
            to_columns[..., seen, :] += (g.mT @ x) * before
        to_log_rows = (rows * to_rows).sum(-3).to(at_rows.dtype)
        return to_rows, to_columns, to_log_rows, -(columns * to_columns).to(at_rows.dtype)


def _factors(
    rows: Tensor, at_rows: Tensor, at_columns: Tensor
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """For each block of rows and the columns before it, and with those within it: both places, and
    factors of rows and of columns.
    """
    length, dtype = at_rows.shape[-2], rows.dtype
    steps = at_columns.shape[-2] // length
    size = max(1, _BLOCK // steps)
    for first in range(0, length, size):
        last = min(length, first + size)
        own = slice(first, last)
        if first:
            earlier = slice(0, first * steps)
            start = at_columns[..., first * steps - 1, None, :]
            after = (at_rows[..., own, :] - start).to(dtype).exp()
            yield own, earlier, after, (start - at_columns[..., earlier, :]).to(dtype).exp()
        within = slice(first * steps, last * steps)
        middle = at_rows[..., (first + last - 1) // 2, None, :]
        after = (at_rows[..., own, :] - middle).exp()
        yield own, within, after, (middle - at_columns[..., within, :]).exp()
