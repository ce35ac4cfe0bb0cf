"""Softmax attention over a window of keys and a few shared columns, in time and memory O(L w).

A query sees the keys around it and, where a mechanism has them, summaries: further keys and values
that stand for many tokens each. One softmax covers both.

Queries are taken block by block; a batched product of small matrices does all blocks of a tile at
once. See `attentions.shared.window_tiles` for how the sequence is cut. The backward pass computes
the weights again, unless keeping them takes no more memory than the queries do.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.first_order import first_derivatives_only
from attentions.shared.window_tiles import Plan, Summaries, Tile


@without_autocast
def windowed_softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_mask: Tensor | None,
    *,
    before: int,
    after: int,
    segment: int = 1,
    summaries: Summaries | None = None,
) -> Tensor:
    """Softmax attention of each query over the keys of its window, and the summaries it sees.

    The window of query i is s - before .. s + segment - 1 + after, where s is the first position of
    the query's segment: s = i for segments of one token, so that the window slides.

    Args:
        q: (B, H, Lq, D); the last Lq positions of the keys. k: (B, H, Lk, D). v: (B, H, Lk, Dv).
        key_mask: (B, Lk) bool, True where valid, or None. What is masked must be finite.
        before: keys before the segment, >= 0.
        after: keys after the segment, >= 0.
        segment: tokens that share a window; more than one takes Lq = Lk.
        summaries: further columns of the same softmax.

    Returns:
        (B, H, Lq, Dv) in the dtype of v, computed in float32 at least; zeros in a row that sees
        nothing.
    """
    lag = k.shape[-2] - q.shape[-2]
    if lag and segment > 1:
        raise ValueError(f"segments of {segment} tokens take as many queries as keys")
    # Only the keys that the first query's window reaches matter. Zeros stand in for the queries of
    # the tokens before it.
    start = max(0, lag - before)
    if lag:
        k, v = k[..., start:, :], v[..., start:, :]
        key_mask = None if key_mask is None else key_mask[:, start:]
        q = F.pad(q, (0, 0, lag - start, 0))
    # What a window reaches beyond the sequence is not there, and costs nothing.
    length = k.shape[-2]
    if segment >= length > 0:
        before, after, segment = 0, 0, length
    before, after = (min(x, max(0, length - 1)) for x in (before, after))
    if summaries is None:
        summaries = Summaries(k[..., :0, :], v[..., :0, :])
    plan = Plan(length, before, after, segment, start, key_mask, summaries)
    out = _WindowedSoftmax.apply(  # type: ignore[no-untyped-call]  # apply is not annotated in torch
        q, k, v, summaries.keys, summaries.values, plan
    )
    return out[..., lag - start :, :]


def _weights(tile: Tile, q: Tensor, k: Tensor, summary_k: Tensor) -> Tensor:
    """(N, block, S + span) softmax weights of queries, spans and summaries (pairs, S, D)."""
    hidden, scale = tile.hidden, q.shape[-1] ** -0.5
    weights = q.new_empty(*q.shape[:2], k.shape[1])
    weights.baddbmm_(q, k.mT, beta=0.0, alpha=scale)
    weights.view(*tile.shape, -1).masked_fill_(hidden.window, -math.inf)
    if hidden.last:
        pairs = tile.by_pair(q)
        scores = q.new_empty(*pairs.shape[:2], hidden.last)
        scores.baddbmm_(pairs, summary_k.mT, beta=0.0, alpha=scale)
        scores = scores.view(*tile.shape, -1)
        if hidden.summaries is not None:
            scores[..., hidden.first :].masked_fill_(hidden.summaries, -math.inf)
        weights = torch.cat([scores.view(*q.shape[:2], -1), weights], dim=-1)
    weights = weights.softmax(-1)
    if hidden.rows is not None:
        weights.view(*tile.shape, -1).masked_fill_(hidden.rows, 0.0)
    return weights


class _WindowedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, summary_k: Tensor, summary_v: Tensor, plan: Plan
    ) -> Tensor:
        ctx.plan = plan
        dtype = torch.promote_types(q.dtype, torch.float32)
        out = v.new_empty(*q.shape[:3], v.shape[-1])
        kept: list[Tensor] = []
        for tile in plan.tiles(q):
            last = tile.hidden.last
            shared_k, shared_v = (tile.summaries(x, dtype) for x in (summary_k, summary_v))
            weights = _weights(tile, tile.blocks(q, dtype), tile.spans(k, dtype), shared_k)
            if plan.keep(q):
                kept.append(weights)
            means = weights[..., last:].bmm(tile.spans(v, dtype))
            if last:
                tile.by_pair(means).baddbmm_(tile.by_pair(weights)[..., :last], shared_v)
            tile.put(out, means)
        ctx.save_for_backward(q, k, v, summary_k, summary_v, *kept)
        return out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, summary_k, summary_v, *kept = ctx.saved_tensors
        kept.reverse()
        plan: Plan = ctx.plan
        dtype = torch.promote_types(q.dtype, torch.float32)
        grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (q, k, v))
        grad_shared = [torch.zeros_like(x, dtype=dtype) for x in (summary_k, summary_v)]
        carry_k: Tensor | None = None
        carry_v: Tensor | None = None
        for tile in plan.tiles(q):
            last = tile.hidden.last
            shared_k, shared_v = (tile.summaries(x, dtype) for x in (summary_k, summary_v))
            queries, outer = tile.blocks(q, dtype), tile.blocks(grad, dtype)
            keys = tile.spans(k, dtype)
            weights = kept.pop() if kept else _weights(tile, queries, keys, shared_k)
            if not tile.first:
                carry_k = carry_v = None
            carry_v = tile.fold(grad_v, weights[..., last:].mT.bmm(outer), carry_v)
            # Of the weights, then of the scores: weights * (their own less its mean).
            inner = outer.bmm(tile.spans(v, dtype).mT)
            if last:
                near = tile.by_pair(outer).bmm(shared_v.mT)
                inner = torch.cat([near.view(*inner.shape[:2], last), inner], dim=-1)
            inner.mul_(weights)
            inner.addcmul_(weights, inner.sum(-1, keepdim=True), value=-1.0)
            inner.mul_(q.shape[-1] ** -0.5)
            own = inner[..., last:].bmm(keys)
            if last:
                far, far_weights = (tile.by_pair(x)[..., :last] for x in (inner, weights))
                tile.by_pair(own).baddbmm_(far, shared_k)
                tile.add(grad_shared[0], far.mT.bmm(tile.by_pair(queries)))
                tile.add(grad_shared[1], far_weights.mT.bmm(tile.by_pair(outer)))
            tile.put(grad_q, own)
            carry_k = tile.fold(grad_k, inner[..., last:].mT.bmm(queries), carry_k)
        like = zip(grad_shared, (summary_k, summary_v), strict=True)
        return grad_q, grad_k, grad_v, *(x.to(y.dtype) for x, y in like), None
