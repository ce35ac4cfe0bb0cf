"""The tensors of one call, and the same call with tokens cut off, changed or removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cab.attention_context import AttentionContext
from cab.attention_contract import Attention
from cab.checks.conditions import Condition

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Inputs:
    """q, k, v and the context of one call; in self attention both sides of it are the same."""

    q: Tensor
    k: Tensor
    v: Tensor
    context: AttentionContext | None
    cross: bool

    def run(self, module: Attention) -> Tensor:
        """The module's output."""
        return module(self.q, self.k, self.v, self.context)

    @property
    def given(self) -> AttentionContext:
        """The context, an empty one where there is none."""
        return self.context or AttentionContext()

    @property
    def key_mask(self) -> Tensor | None:
        """(B, Lk) bool or None."""
        return self.given.key_mask

    def valid_queries(self) -> Tensor:
        """(B, 1, Lq, 1) bool, the outputs that mean something."""
        mask = self.given.query_mask
        if mask is None:
            mask = torch.ones(self.q.shape[0], self.q.shape[-2], dtype=torch.bool)
        return mask[:, None, :, None]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is handed over, by name; a tensor that two names have comes once."""
        named = {"q": self.q, "k": self.k, "v": self.v}
        for name, value in vars(self.given).items():
            if isinstance(value, Tensor) and all(value is not x for x in named.values()):
                named[name] = value
        return named

    def leaves(self) -> tuple[Inputs, dict[str, Tensor]]:
        """A copy whose floating point tensors require a gradient, and these by name."""
        leaves: dict[str, Tensor] = {}

        def leaf(name: str, x: Tensor) -> Tensor:
            leaves[name] = x.detach().clone().requires_grad_()
            return leaves[name]

        q, k, v = (leaf(n, x) for n, x in (("q", self.q), ("k", self.k), ("v", self.v)))
        if self.context is None:
            return Inputs(q, k, v, None, self.cross), leaves
        c = self.context
        own = c.query_input if c.query_input is None else leaf("query_input", c.query_input)
        other = own
        if self.cross and c.key_input is not None:
            other = leaf("key_input", c.key_input)
        context = replace(c, query_input=own, key_input=other)
        return Inputs(q, k, v, context, self.cross), leaves

    def changed(
        self,
        queries: Change | None = None,
        keys: Change | None = None,
        *,
        of_context: bool = True,
    ) -> Inputs:
        """Apply a function of (B, L, ...) tensors to all that belongs to queries, or to keys.

        In self attention give both or ``keys`` alone, which then also changes the layer input.
        ``of_context``: also masks and positions, which a change of length needs.
        """

        def heads(x: Tensor, change: Change | None) -> Tensor:
            return x if change is None else change(x.transpose(1, 2)).transpose(1, 2)

        def field(x: Tensor | None, change: Change | None, floating: bool) -> Tensor | None:
            if x is None or change is None or not (floating or of_context):
                return x
            if x.ndim == 1:
                return change(x[None])[0]
            return change(x)

        k, v = heads(self.k, keys), heads(self.v, keys)
        q = heads(self.q, queries)
        if self.context is None:
            return Inputs(q, k, v, None, self.cross)
        c = self.context
        of_queries = queries if self.cross else keys
        query_mask = field(c.query_mask, of_queries, False)
        query_input = field(c.query_input, of_queries, True)
        query_positions = field(c.query_positions, of_queries, False)
        query_times = field(c.query_times, of_queries, True)
        if not self.cross:
            context = AttentionContext(
                query_mask, query_mask, query_input, query_input, query_positions,
                query_positions, query_times, query_times,
            )  # fmt: skip
            return Inputs(q, k, v, context, self.cross)
        context = AttentionContext(
            query_mask,
            field(c.key_mask, keys, False),
            query_input,
            field(c.key_input, keys, True),
            query_positions,
            field(c.key_positions, keys, False),
            query_times,
            field(c.key_times, keys, True),
        )
        return Inputs(q, k, v, context, self.cross)

    def cut(self, length: int) -> Inputs:
        """The first ``length`` queries; in self attention the same keys."""

        def first(x: Tensor) -> Tensor:
            return x[:, :length]

        return self.changed(first, None if self.cross else first)

    def rows(self, index: slice) -> Inputs:
        """Some rows of the batch."""

        def some(x: Tensor) -> Tensor:
            return x[index] if len(x) > 1 or len(self.q) == 1 else x

        return self.changed(some, some)

    def noisy_after(self, cuts: Tensor, noise: float, generator: torch.Generator) -> Inputs:
        """Everything of the tokens from ``cuts`` (B,) on is drawn anew, with deviation ``noise``,
        values three times as far; in cross attention that of the queries alone.
        """

        def anew(x: Tensor) -> Tensor:
            x = x.detach()
            if not x.is_floating_point():
                return x
            later = torch.arange(x.shape[1]) >= cuts[:, None]
            later = later.view(*later.shape, *(1,) * (x.ndim - 2))
            other = torch.randn(x.shape, generator=generator, dtype=torch.float64) * noise
            return torch.where(later, other.to(x.dtype), x)

        out = self.changed(anew, None if self.cross else anew, of_context=False)
        if not self.cross:
            later = (torch.arange(self.v.shape[-2]) >= cuts[:, None])[:, None, :, None]
            out = replace(out, v=torch.where(later, 3 * out.v, out.v))
        return out

    def with_context(self, **fields: Any) -> Inputs:
        """Other fields in the context."""
        return replace(self, context=replace(self.given, **fields))

    def to(self, dtype: torch.dtype) -> Inputs:
        """Floating point tensors in another dtype."""

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype) if x.is_floating_point() else x

        return self.changed(cast, cast)


def key_masks(condition: Condition, generator: torch.Generator) -> Tensor | None:
    """(B, Lk) bool of the condition's kinds; None where it has no mask."""
    if not condition.mask:
        return None
    batch, length = condition.batch, condition.length_k
    kinds = ("suffix", "prefix", "holes", "all", "holes", "empty")
    mask = torch.ones(batch, length, dtype=torch.bool)
    for row in range(batch):
        kind = kinds[row % len(kinds)] if condition.mask == "mixed" else condition.mask
        drop = int(torch.randint(1, max(2, length // 2 + 1), (), generator=generator))
        drop = min(drop, length - 1)
        if kind == "suffix":
            mask[row, length - drop :] = False
        elif kind == "prefix":
            mask[row, :drop] = False
        elif kind == "holes":
            mask[row] = torch.rand(length, generator=generator) < 0.7
            mask[row, int(torch.randint(0, length, (), generator=generator))] = True
        elif kind == "empty":
            mask[row] = False
    return mask


def draw_inputs(condition: Condition, cross: bool) -> Inputs:
    """Random inputs of a condition."""
    c = condition
    generator = torch.Generator().manual_seed(c.seed + 1)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return (x * c.scale + c.offset).to(c.dtype)

    def heads(length: int, width: int) -> Tensor:
        if c.strided:
            return draw(c.batch, length, c.heads, width).transpose(1, 2)
        return draw(c.batch, c.heads, length, width)

    length_q = c.length_q if cross else c.length_k
    key_input = draw(c.batch, c.length_k, c.width)
    q, k = heads(length_q, c.head_dim), heads(c.length_k, c.head_dim)
    v = heads(c.length_k, c.value_dim)
    query_input = draw(c.batch, length_q, c.width) if cross else key_input
    if c.given == "none":
        return Inputs(q, k, v, None, cross)
    key_mask = key_masks(c, generator)
    query_mask = None if cross else key_mask
    if cross and c.query_mask:
        query_mask = torch.rand(c.batch, length_q, generator=generator) < 0.7
    context = AttentionContext(query_mask=query_mask, key_mask=key_mask)
    if c.given != "bare":
        context = replace(context, query_input=query_input, key_input=key_input)
    if c.given in ("positions", "all"):
        positions = torch.arange(c.length_k) + c.first_position
        own = torch.arange(length_q) + c.first_position if cross else positions
        context = replace(context, query_positions=own, key_positions=positions)
    if c.given in ("times", "all"):
        gaps = torch.rand(c.batch, c.length_k, generator=generator, dtype=torch.float64)
        times = gaps.cumsum(-1).to(c.parameter_dtype)
        others = times
        if cross:
            gaps = torch.rand(c.batch, length_q, generator=generator, dtype=torch.float64)
            others = gaps.cumsum(-1).to(c.parameter_dtype)
        context = replace(context, query_times=others, key_times=times)
    return Inputs(q, k, v, context, cross)
