"""`density` of mechanisms that read a part of the visible pairs, from what they say they read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attentions.shared.positions import at_positions
from cab import Attention, AttentionContext


class PartialReads(Attention):
    """`cab.density.ReadsShare` in terms of a count of the columns that queries read."""

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """(B, H) float64: pairs of a valid query and a column that it reads, for tokens that stand
        at their places, with zeros for masked ones.
        """
        raise NotImplementedError

    @torch.no_grad()
    def density(self, q: Tensor, k: Tensor, context: AttentionContext | None = None) -> Tensor:
        """(B, H) share of the visible pairs that `forward` reads; see `cab.density`."""
        return share_read(self, self.columns_read, q, k, context)


def share_read(
    attention: Attention,
    columns_read: Callable[[Tensor, Tensor, AttentionContext], Tensor],
    q: Tensor,
    k: Tensor,
    context: AttentionContext | None,
) -> Tensor:
    """(B, H) share of the visible pairs, from a count as `PartialReads.columns_read` gives it."""
    q, k, own = _placed(attention, q, k, context)
    if own.query_mask is not None:
        q = q.masked_fill(~own.query_mask[:, None, :, None], 0.0)
    if own.key_mask is not None:
        k = k.masked_fill(~own.key_mask[:, None, :, None], 0.0)
    causal = attention.pattern.causal and not attention.pattern.cross
    return columns_read(q, k, own) / visible_pairs(causal, q, k, own)[:, None]


def visible_pairs(causal: bool, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
    """(B,) float64: pairs of a valid query and a valid key that it may see."""
    batch, length_q, length_k = q.shape[0], q.shape[-2], k.shape[-2]
    valid = q.new_ones(batch, length_k, dtype=torch.float64)
    if context.key_mask is not None:
        valid = context.key_mask.double()
    seen = valid.cumsum(-1)[:, length_k - length_q :] if causal else valid.sum(-1, keepdim=True)
    seen = seen.expand(-1, length_q)
    if context.query_mask is not None:
        seen = seen * context.query_mask
    return seen.sum(-1)


def _placed(
    attention: Attention, q: Tensor, k: Tensor, context: AttentionContext | None
) -> tuple[Tensor, Tensor, AttentionContext]:
    """Queries, keys and masks at the positions of the context, as `forward` is given them."""
    given: list[tuple[Tensor, Tensor, AttentionContext | None]] = []

    @at_positions
    def take(
        _: Attention, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        given.append((q, k, context))
        return q

    take(attention, q, k, k, context)
    ((q, k, context),) = given
    return q, k, AttentionContext() if context is None else context
