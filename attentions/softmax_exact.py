"""Softmax attention with the score matrix in memory: the exact-attention control.

It computes the same function as ``softmax`` by other floating-point operations, so the difference
between the two on a leaderboard shows the noise of the benchmark.

The whole matrix P of weights is computed, masked or not, and kept for the backward pass:

    S = Q K^T / sqrt(D),   P = softmax(S),   O = P V
    dP = G V^T,   dS = P * (dP - rowsum(G * O)),   dQ = dS K / sqrt(D),   dK = dS^T Q / sqrt(D),
    dV = P^T G

It is the only matrix of that size. Left to autograd there are six, of which a CPU maps every page
anew in every call: an allocator gives blocks beyond some size (glibc: 32 MiB at most) back at once.
So S, its softmax, dP and dS are taken for so many rows at a time as a cache holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.exact import exact_softmax, exact_softmax_attention
from attentions.shared.heads import empty_heads
from attentions.shared.masks import visible
from attentions.softmax import softmax_flops
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    Family,
    Grade,
    Kind,
    Pattern,
    register_attention,
)

_CACHED = 1 << 19
"""Scores that are worked on at a time on a CPU: few enough for its cache."""


@register_attention(
    AttentionInfo(
        id="softmax-exact",
        family=Family.SOFTMAX,
        title="Softmax attention (plain formula)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L^2 D",
        memory="L^2",
        paper="Vaswani et al., Attention Is All You Need",
        year=2017,
        url="https://arxiv.org/abs/1706.03762",
        kind=Kind.CONTROL,
    )
)
class ExactSoftmaxAttention(KeyValueCache):
    """Softmax attention by the plain formula, L^2 memory."""

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in the dtype of the values."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        q, k = q.to(v.dtype), k.to(v.dtype)
        if q.is_cuda:  # its allocator keeps what is freed, and blocks would cost launches
            return exact_softmax_attention(q, k, v, mask)
        out: Tensor = _Exact.apply(q, k, v, mask)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
        return out

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The sum over keys, one query row at a time."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        rows = []
        for i in range(q.shape[-2]):
            row_mask = mask
            if mask is not None and mask.shape[-2] > 1:
                row_mask = mask[..., i : i + 1, :]
            weights = exact_softmax(q[..., i : i + 1, :], k, row_mask)
            rows.append((weights.transpose(-1, -2) * v).sum(-2, keepdim=True))
        return torch.cat(rows, dim=-2)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq Lk (D + Dv): the whole matrix, masked or not."""
        return softmax_flops(shape, causal=False)


class _Exact(torch.autograd.Function):
    """Keeps P; has derivatives of every order."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        out, weights = empty_heads(q, v.shape[-1]), _empty_weights(q, k)
        limit, blind = (None, None) if mask is None else _limit(mask, weights)
        for heads, rows in _blocks(weights):
            p, keys = weights[*heads, rows], k[heads]
            _softmax(p, q[*heads, rows], keys, None if limit is None else limit[*heads, rows])
            torch.bmm(p, v[heads], out=out[*heads, rows])
        if blind is not None:
            out.masked_fill_(blind, 0.0)
        ctx.save_for_backward(q, k, v, mask, blind, weights, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, blind, weights, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients are to be differentiated again
            plain, needed = exact_softmax_attention(q, k, v, mask), ctx.needs_input_grad[:3]
            asked = [x for x, need in zip((q, k, v), needed, strict=True) if need]
            found = iter(torch.autograd.grad(plain, asked, gradients[0], create_graph=True))
            return (*(next(found) if need else None for need in needed), None)
        g = gradients[0] if blind is None else gradients[0].masked_fill(blind, 0.0)
        dq, dk, dv = (empty_heads(x, x.shape[-1]) for x in (q, k, v))
        own = (g * out).sum(-1, keepdim=True)
        scale, scratch = q.shape[-1] ** -0.5, weights.new_empty(0)
        for heads, rows in _blocks(weights):
            p, seen = weights[*heads, rows], 1.0 if rows.start else 0.0
            ds = scratch.resize_(p.shape)
            torch.bmm(g[*heads, rows], v[heads].mT, out=ds)
            ds.sub_(own[*heads, rows]).mul_(p)
            _add(dq[*heads, rows], ds, k[heads], 0.0, scale)
            _add(dk[heads], ds.mT, q[*heads, rows], seen, scale)
            _add(dv[heads], p.mT, g[*heads, rows], seen, 1.0)
        return dq, dk, dv, None


def _limit(mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor | None]:
    """The most that each score may be, inf or -inf, and True in rows without keys, if there are
    any. Such a row would be NaN: it sees all, and its output is to be put to zero.
    """
    blind: Tensor | None = ~mask.any(-1, keepdim=True)
    if blind is not None and blind.any():
        mask = mask | blind
    else:
        blind = None
    limit = weights.new_full(mask.shape, math.inf).masked_fill_(~mask, -math.inf)
    return limit.expand(weights.shape), blind


def _softmax(p: Tensor, q: Tensor, k: Tensor, limit: Tensor | None) -> None:
    """Fill in the weights of a block, (n, rows, Lk)."""
    scale = q.shape[-1] ** -0.5
    _add(p, q, k.mT, 0.0, scale)
    if limit is None:
        torch.softmax(p, -1, out=p)
        return
    # Several times as fast as filling by a mask.
    torch.softmax(torch.minimum(p, limit, out=p), -1, out=p)
    if p[..., :1].isnan().any():
        # A hidden score that is no number, as sums that overflow are, is below no limit.
        _add(p, q, k.mT, 0.0, scale)
        torch.softmax(p.masked_fill_(limit == -math.inf, -math.inf), -1, out=p)


def _empty_weights(q: Tensor, k: Tensor) -> Tensor:
    """(B, H, Lq, Lk), to be filled in; in memory in the order of `_blocks`."""
    batch, heads, length = q.shape[:3]
    if batch <= heads:
        return q.new_empty(batch, heads, length, k.shape[2])
    return q.new_empty(heads, batch, length, k.shape[2]).transpose(0, 1)


def _blocks(weights: Tensor) -> Iterator[tuple[tuple[int | slice, int | slice], slice]]:
    """Successive blocks of (B, H, Lq, Lk): some heads of a sequence, or one head of some sequences,
    whichever is the longer run; and some rows.
    """
    batch, heads, length, keys = weights.shape
    # In a short dtype a gradient that is summed block by block would be rounded as often.
    whole = weights.dtype.itemsize < torch.float32.itemsize
    rows = max(1, length if whole else min(length, _CACHED // max(1, keys)))
    several = max(1, _CACHED // max(1, rows * keys))
    for one in range(min(batch, heads)):
        for first in range(0, max(batch, heads), several):
            some = slice(first, first + several)
            for row in range(0, length, rows):
                yield (one, some) if batch <= heads else (some, one), slice(row, row + rows)


def _add(out: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> None:
    """Put beta out + alpha a b into ``out``; with beta zero, what it holds is not read."""
    torch.baddbmm(out, a, b, beta=beta, alpha=alpha, out=out)
