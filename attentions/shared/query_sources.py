"""Queries and keys that come from elsewhere than the layer's own input, by hooks in a model.

A slot is handed q and k that its backbone has projected. A mechanism whose q and k are projections
of something else is softmax attention in itself, and what it changes is the input of the
projections around it. `wire` of such a mechanism finds them in the model that was built and hooks
into them; the backbone's code stays as it is.

What is found: a module that holds the slot as ``core`` beside its projections ``query`` and ``key``
(`tasks.backbones.multihead.MultiHeadAttention`). Slots come in the order in which they were built,
so that a stack begins where an index of a layer does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from cab import Attention


@dataclass(frozen=True)
class Place:
    """A slot with the projections that make its queries and keys."""

    slot: Attention
    holder: nn.Module
    query: nn.Module
    key: nn.Module


def stacks_of(model: nn.Module, slots: Sequence[Attention]) -> Iterator[list[Place]]:
    """The slots of a model, stack by stack.

    Raises:
        NotImplementedError: a slot has no projections that could be found.
    """
    holders = {id(core): module for module in model.modules()
               if (core := module._modules.get("core")) is not None}  # fmt: skip
    stack: list[Place] = []
    for slot in slots:
        holder = holders.get(id(slot))
        query = None if holder is None else holder._modules.get("query")
        key = None if holder is None else holder._modules.get("key")
        if holder is None or query is None or key is None:
            raise NotImplementedError("the backbone has no projections query and key around a slot")
        if stack and slot.spec.layer_index <= stack[-1].slot.spec.layer_index:
            yield stack
            stack = []
        stack.append(Place(slot, holder, query, key))
    if stack:
        yield stack
