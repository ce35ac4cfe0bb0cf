"""The same call with later tokens changed, with later tokens cut off, with other rows.

Position t counts queries. In self attention query i stands at key i + Lk - Lq.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from cab import AttentionContext
from runners.guard.calls import SlotCall

_GRIDS = ("query_grid", "key_grid")


def with_later_changed(call: SlotCall, after: Tensor) -> SlotCall:
    """Tokens from ``after`` (B,) on are those of another sequence, in reverse: numbers of the
    same kind, since what leaks may do so on such alone. Masks, positions and times stay.
    """
    queries = call.q.shape[-2]
    later = torch.arange(queries, device=call.q.device) >= after.to(call.q.device)[:, None]
    changed: dict[str, Any] = {"q": swapped(call.q, later, 2)}
    context = call.context
    keys = later
    if not call.module.pattern.cross:
        keys = _at_keys(later, call.k.shape[-2])
        changed |= {"k": swapped(call.k, keys, 2), "v": swapped(call.v, keys, 2)}
    if context is not None:
        inputs = {"query_input": context.query_input}
        if not call.module.pattern.cross:
            inputs["key_input"] = context.key_input
        where = {"query_input": later, "key_input": keys}
        context = _replaced(
            context,
            {name: swapped(x, where[name], 1) for name, x in inputs.items() if x is not None},
        )
    return replace(call, context=context, **changed)


def cut(call: SlotCall, length: int) -> SlotCall:
    """The first queries alone; in self attention with the keys up to theirs."""
    queries, keys = call.q.shape[-2], call.k.shape[-2]
    return shortened(call, length, keys if call.module.pattern.cross else keys - queries + length)


def rows(call: SlotCall, index: Tensor) -> SlotCall:
    """The rows of the batch that ``index`` (n,) names, in that order."""
    index = index.to(call.q.device)
    context = call.context
    if context is not None:
        changed: dict[str, Any] = {}
        for field in fields(context):
            x = getattr(context, field.name)
            if isinstance(x, Tensor) and not (field.name.endswith("positions") and x.dim() == 1):
                changed[field.name] = x[index]
        context = _replaced(context, changed)
    return replace(
        call,
        q=call.q[index],
        k=call.k[index],
        v=call.v[index],
        out=call.out[index],
        context=context,
    )


def shortened(call: SlotCall, queries: int, keys: int) -> SlotCall:
    """The first queries and the first keys; a grid is given up."""
    context = call.context
    if context is not None:
        changed: dict[str, Any] = {}
        for field in fields(context):
            x = getattr(context, field.name)
            if isinstance(x, Tensor):
                stays = queries if field.name.startswith("query") else keys
                changed[field.name] = x.narrow(_length_dim(x), 0, stays)
        context = replace(_replaced(context, changed), **dict.fromkeys(_GRIDS))
    q, k, v = call.q[..., :queries, :], call.k[..., :keys, :], call.v[..., :keys, :]
    return replace(call, q=q, k=k, v=v, out=call.out[..., :queries, :], context=context)


def swapped(x: Tensor, later: Tensor, dim: int) -> Tensor:
    """``x`` with other tokens where ``later`` (B, L) is true: those of the next row, in reverse.

    Args:
        x: rows along the first dimension, tokens along ``dim``.
        later: true from a place on to the end, in every row.
    """
    length = later.shape[1]
    places = torch.arange(length, device=x.device)
    first = length - later.sum(1, keepdim=True)
    # The first place of all, then from the last one back: another token even in a single row.
    source = torch.where(later, (length - (places - first)) % length, places)
    shape = [1] * x.dim()
    shape[0], shape[dim] = later.shape
    mixed = x.roll(1, 0).gather(dim, source.view(shape).expand(x.shape))
    return torch.where(later.view(shape), mixed, x)


def _at_keys(later: Tensor, keys: int) -> Tensor:
    """(B, Lk) from (B, Lq): keys before the first query are earlier."""
    before = keys - later.shape[1]
    if before <= 0:
        return later[:, -keys:]
    return torch.cat([later.new_zeros(len(later), before), later], dim=1)


def _replaced(context: AttentionContext, changed: dict[str, Any]) -> AttentionContext:
    """With other tensors; where query and key fields were one tensor they are one again."""
    for kind in ("input", "mask", "positions", "times"):
        query, key = f"query_{kind}", f"key_{kind}"
        own = getattr(context, query)
        if own is not None and own is getattr(context, key) and query in changed:
            changed = {**changed, key: changed[query]}
    return replace(context, **changed)


def _length_dim(x: Tensor) -> int:
    """Of (L,) positions, or of (B, L) and (B, L, E) fields."""
    return 0 if x.dim() == 1 else 1
