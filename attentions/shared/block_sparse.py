"""Softmax attention of blocks of queries over lists of key blocks: time and memory go with what is
read.

The columns that queries may read - keys, or pooled keys that stand for several - are cut into units
of equal size, and a list names the units that the queries of a block read. Lists may differ by row
of the batch and head. Nothing of size Lq x Lk is ever made: a tile of query blocks gathers the
units on its lists, and one batched product of small matrices does its scores. The backward pass
gathers again and computes the weights anew.

Most units are read by every query of the block. Those that are not, such as the one on the
diagonal of a causal pattern, stand last in the lists, and only they are masked query by query.
What is hidden from all queries alike (padding), or counts as several keys, is a bias by column.
See `attentions.shared.block_tiles` for how lists become tiles.

There is no form for FlexAttention here: on a GPU the same batched products run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.block_tiles import BlockLists, BlockPlan, Tile, in_units
from attentions.shared.fake_quantized import rounded
from attentions.shared.first_order import first_derivatives_only


@without_autocast
def block_sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lists: BlockLists,
    *,
    bias: Tensor | None = None,
    lead: int = 0,
    levels: int = 0,
) -> Tensor:
    """Softmax attention of each query over the columns that the list of its block names.

    Args:
        q: (B, H, Lq, D); block after block.
        k: (B, H, N, D) columns. v: (B, H, N, Dv).
        lists: which units of columns each block of queries reads.
        bias: (B or 1, N) added to the scores of a column, -inf where it is hidden, or None. The
            columns that are hidden must be finite.
        lead: places in the first block before the first query.
        levels: round the weights of each block of queries over each unit to this many steps of
            their maximum, as integer kernels do; 0: not. The gradient passes that over.

    Returns:
        (B, H, Lq, Dv) in the dtype of v, computed in float32 at least; zeros in a row that reads
        nothing.

    Raises:
        ValueError: the queries do not fill the blocks of the lists.
    """
    blocks, length = lists.units.shape[2], lead + q.shape[2]
    if not (blocks - 1) * lists.block < length <= blocks * lists.block:
        raise ValueError(f"{length} queries do not fill {blocks} blocks of {lists.block}")
    padded = F.pad(q, (0, 0, lead, blocks * lists.block - length))
    plan = BlockPlan(lists, q.shape, k.shape[2], bias)
    out = _BlockSparse.apply(padded, k, v, plan, levels)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
    return out[:, :, lead:length]


@torch.no_grad()
def columns_read(
    lists: BlockLists,
    shape: tuple[int, ...],
    columns: int,
    *,
    bias: Tensor | None = None,
    query_mask: Tensor | None = None,
    lead: int = 0,
) -> Tensor:
    """Pairs of a valid query and a column that it reads, counted for every row and head.

    Args:
        lists: as in `block_sparse_attention`.
        shape: of the queries, (B, H, Lq, D).
        columns: N.
        bias: (B or 1, N).
        query_mask: (B, Lq) bool, True where valid.
        lead: as there.

    Returns:
        (B, H) float64.
    """
    batch, heads, length = shape[:3]
    blocks = lists.units.shape[2]
    plan = BlockPlan(lists, torch.Size(shape), columns, bias)
    device = lists.units.device
    if query_mask is None:
        query_mask = torch.ones(batch, length, dtype=torch.bool, device=device)
    valid = F.pad(query_mask, (lead, blocks * lists.block - lead - length))
    valid = valid[:, None].expand(-1, heads, -1).reshape(-1, lists.block)
    total = torch.zeros(batch * heads, dtype=torch.float64, device=device)
    for tile in plan.tiles():
        scores = torch.zeros(tile.count, lists.block, tile.width, device=device)
        bias_of_tile = tile.bias(scores.dtype)
        if bias_of_tile is not None:
            scores += bias_of_tile
        seen = tile.hide_(scores) > float("-inf")
        rows = (seen & tile.of_blocks(valid)[..., None]).sum((1, 2))
        total.index_add_(0, tile.blocks // blocks, rows.double())
    return total.view(batch, heads)


def _weights(tile: Tile, q: Tensor, k: Tensor) -> Tensor:
    """(n, block, width) softmax weights of queries (n, block, D) over columns (n, width, D)."""
    bias, scale = tile.bias(q.dtype), q.shape[-1] ** -0.5
    scores = q.new_empty(*q.shape[:2], k.shape[1])
    if bias is None:
        scores.baddbmm_(q, k.mT, beta=0.0, alpha=scale)
    else:
        scores.copy_(bias).baddbmm_(q, k.mT, alpha=scale)
    tile.hide_(scores)
    weights = scores.softmax(-1)
    if tile.may_be_empty:
        # A row that reads nothing has only -inf: softmax gives NaN there.
        weights.masked_fill_(scores.amax(-1, keepdim=True) == float("-inf"), 0.0)
    return weights


def _on_grid(weights: Tensor, unit: int, levels: int) -> Tensor:
    """Weights (n, block, width), rounded in each unit where there are levels."""
    if not levels:
        return weights
    return rounded(weights.unflatten(-1, (-1, unit)), levels, (1, 3)).flatten(-2)


class _BlockSparse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: BlockPlan, levels: int) -> Tensor:
        ctx.plan, ctx.levels = plan, levels
        ctx.save_for_backward(q, k, v)
        dtype = torch.promote_types(q.dtype, torch.float32)
        out = v.new_zeros(*q.shape[:3], v.shape[-1])
        rows = out.view(-1, plan.block * v.shape[-1])
        queries, keys, values = _laid(plan, q, k, v)
        for tile in plan.tiles():
            if not tile.width:
                continue
            own, columns = tile.queries(queries, dtype), tile.columns(keys, dtype)
            weights = _weights(tile, own, columns)
            weights = _on_grid(weights, plan.unit, levels)
            tile.put(rows, weights.bmm(tile.columns(values, dtype)))
        return out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        plan: BlockPlan = ctx.plan
        dtype = torch.promote_types(q.dtype, torch.float32)
        queries, keys, values = _laid(plan, q, k, v)
        outer = grad.reshape(len(queries), -1)
        grad_q = torch.zeros_like(queries)
        grad_k, grad_v = (torch.zeros_like(x, dtype=dtype) for x in (keys, values))
        for tile in plan.tiles():
            if not tile.width:
                continue
            own, columns = tile.queries(queries, dtype), tile.columns(keys, dtype)
            above = tile.queries(outer, dtype)
            weights = _weights(tile, own, columns)
            tile.add(grad_v, _on_grid(weights, plan.unit, ctx.levels).mT.bmm(above))
            # Of the weights, then of the scores: weights * (their own less its mean).
            inner = above.bmm(tile.columns(values, dtype).mT).mul_(weights)
            inner.addcmul_(weights, inner.sum(-1, keepdim=True), value=-1.0)
            inner.mul_(q.shape[-1] ** -0.5)
            tile.put(grad_q, inner.bmm(columns))
            tile.add(grad_k, inner.mT.bmm(own))
        found = (
            x.view(*like.shape[:2], -1, like.shape[-1])[:, :, : like.shape[2]].to(like.dtype)
            for x, like in ((grad_q, q), (grad_k, k), (grad_v, v))
        )
        return *found, None, None


def _laid(plan: BlockPlan, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B H blocks, block D), and columns (B H units, unit D) of keys and of values."""
    return in_units(q, plan.block), in_units(k, plan.unit), in_units(v, plan.unit)
