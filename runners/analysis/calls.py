"""The calls that attention slots see while a model computes its loss, and how to change them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from cab import Attention, AttentionContext


@dataclass(frozen=True)
class Call:
    """What a slot was called with, detached."""

    module: Attention
    q: Tensor
    """(B, H, Lq, D)"""
    k: Tensor
    v: Tensor
    context: AttentionContext | None


@contextlib.contextmanager
def recorded(modules: Sequence[Attention]) -> Iterator[list[Call]]:
    """The first call of every module in the block, filled in as they happen."""
    calls: list[Call] = []
    seen: set[int] = set()

    def note(module: Attention, q: Tensor, k: Tensor, v: Tensor, context: object) -> Tensor:
        if id(module) not in seen:
            seen.add(id(module))
            kept = context if isinstance(context, AttentionContext) else None
            calls.append(Call(module, q.detach(), k.detach(), v.detach(), kept))
        return q

    with changed_queries(modules, note):
        yield calls


Change = Callable[[Attention, Tensor, Tensor, Tensor, object], Tensor]
"""(module, q, k, v, context) -> the queries to go on with"""


@contextlib.contextmanager
def changed_queries(modules: Sequence[Attention], change: Change) -> Iterator[None]:
    """Within the block, every module gets the queries that ``change`` makes of its own."""

    def hook(
        module: Attention, args: tuple[Tensor, ...], named: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        q, k, v, *rest = args
        context = rest[0] if rest else named.get("context")
        return (change(module, q, k, v, context), k, v, *rest), named

    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
