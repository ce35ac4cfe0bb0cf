"""Positions that the caller gives, for mechanisms that read positions off a token's place.

A window, a segment, a chunk or a lag of a recurrence counts places in the sequence. Where the
context has positions, each token is put at its own, and what is left between them is masked: a hole
in a mask and a token that is missing are then one and the same. See
`cab.AttentionContext.key_mask`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from cab import Attention, AttentionContext

F = TypeVar("F", bound=Callable[..., Any])


def at_positions(attend: F) -> F:
    """Decorator of `forward` or `reference`: tokens stand at the positions of the context.

    In self attention they are the keys' for queries and keys. They are distinct and from 0, and
    where causal in order; those of masked tokens say only how long the sequence is. The cost is
    that of a sequence as long as the last position. Layer inputs are put there with their tokens;
    times and grids are not passed on.
    """

    @functools.wraps(attend)
    def wrapped(
        self: Attention,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        context: AttentionContext | None = None,
    ) -> Any:
        if context is None:
            return attend(self, q, k, v)
        of_keys, of_queries = context.key_positions, context.query_positions
        if not self.pattern.cross:
            of_queries = None if of_keys is None else of_keys[..., k.shape[-2] - q.shape[-2] :]
        if of_keys is None and of_queries is None:
            return attend(self, q, k, v, context)
        keys = _Places(of_keys, context.key_mask, k)
        queries = _Places(of_queries, context.query_mask, q)
        # In self attention the queries are the last of the keys, in their places too.
        if keys.in_order and (queries.in_order or not self.pattern.cross):
            return attend(self, q, k, v, context)
        if not self.pattern.cross:
            keys.count = queries.count = max(keys.count, queries.count)
        key_input = keys.spread_inputs(context.key_input)
        same = not self.pattern.cross and context.query_input is context.key_input
        spread = AttentionContext(
            query_mask=queries.taken(),
            key_mask=keys.taken(),
            query_input=key_input if same else queries.spread_inputs(context.query_input),
            key_input=key_input,
        )
        out = attend(self, queries.spread(q), keys.spread(k), keys.spread(v), spread)
        return queries.gather(out)

    return cast("F", wrapped)


def prompt_at_positions(prefill: F) -> F:
    """Decorator of `prefill`, likewise; the next token stands behind the last position."""

    @functools.wraps(prefill)
    def wrapped(
        self: Attention, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Any:
        if context is None or context.key_positions is None:
            return prefill(self, k, v, context)
        keys = _Places(context.key_positions, context.key_mask, k)
        spread = AttentionContext(
            key_mask=keys.taken(), key_input=keys.spread_inputs(context.key_input)
        )
        return prefill(self, keys.spread(k), keys.spread(v), spread)

    return cast("F", wrapped)


class _Places:
    """Where the tokens of one sequence go."""

    def __init__(self, positions: Tensor | None, mask: Tensor | None, x: Tensor) -> None:
        """Positions (L,) or (B, L), None: 0, 1, 2, ...; mask (B, L); tokens x (B, H, L, D)."""
        if positions is None:
            positions = torch.arange(x.shape[-2], device=x.device)
        self._places = positions.long().expand(x.shape[0], -1)
        self._valid = torch.ones_like(self._places, dtype=torch.bool) if mask is None else mask
        self.count = int(self._places.amax()) + 1 if self._places.numel() else 0
        """Places in all."""
        places = torch.arange(self.count, device=x.device)
        self.in_order = self.count == x.shape[-2] and bool((self._places == places).all())
        """Whether every token stands at its place already."""

    def spread(self, x: Tensor) -> Tensor:
        """(B, H, count, D) tokens at their places, zeros elsewhere."""
        index = self._index()[:, None, :, None].expand_as(x)
        shape = (*x.shape[:2], self.count + 1, x.shape[-1])
        return x.new_zeros(shape).scatter(2, index, x)[:, :, : self.count]

    def spread_inputs(self, x: Tensor | None) -> Tensor | None:
        """(B, count, E) of layer inputs (B, L, E), likewise."""
        return None if x is None else self.spread(x[:, None])[:, 0]

    def taken(self) -> Tensor:
        """(B, count) bool, True where there is a valid token."""
        places = self._valid.new_zeros(self._valid.shape[0], self.count + 1)
        return places.scatter(1, self._index(), self._valid)[:, : self.count]

    def gather(self, x: Tensor) -> Tensor:
        """(B, H, L, D) what is at the tokens' places; zeros for masked ones."""
        index = self._places.masked_fill(~self._valid, 0)[:, None, :, None]
        rows = x.gather(2, index.expand(*x.shape[:2], -1, x.shape[-1]))
        return rows.masked_fill(~self._valid[:, None, :, None], 0.0)

    def _index(self) -> Tensor:
        """Places, masked tokens at one behind the last, from where nothing is read."""
        return self._places.masked_fill(~self._valid, self.count)
