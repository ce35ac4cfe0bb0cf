"""Calls of attention slots as they happen in a model, and how to make them again, changed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from cab import Attention, AttentionContext
from runners.guard.state import undisturbed

_NAMES = ("q", "k", "v", "context")


@dataclass(frozen=True)
class SlotCall:
    """What a slot was given and what it gave, copied as it happened."""

    module: Attention
    q: Tensor
    """(B, H, Lq, D)"""
    k: Tensor
    """(B, H, Lk, D)"""
    v: Tensor
    """(B, H, Lk, Dv)"""
    context: AttentionContext | None
    training: bool
    autocast: torch.dtype | None
    """What automatic mixed precision computed in; None where it was off"""
    out: Tensor
    """(B, H, Lq, Dv)"""

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest type on the way to the output."""
        involved = {self.q.dtype, self.k.dtype, self.v.dtype, self.out.dtype}
        if self.autocast is not None:
            involved.add(self.autocast)
        return max(involved, key=lambda dtype: torch.finfo(dtype).eps)

    def again(self, seed: int = 0) -> Tensor:
        """The output of another such call from the module's present state, which it leaves as it
        was. In train mode a graph is recorded.

        Args:
            seed: of what the module may draw.
        """
        q, k, v = (
            x.detach().clone().requires_grad_(self.training) for x in (self.q, self.k, self.v)
        )
        context = None if self.context is None else mapped(self.context, _copied)
        with (
            undisturbed(self.module, self.q.device),
            torch.set_grad_enabled(self.training),
            torch.autocast(self.q.device.type, self.autocast, enabled=self.autocast is not None),
        ):
            torch.manual_seed(seed)
            self.module.train(self.training)
            out: Tensor = self.module(q, k, v, context)
        return out.detach()

    def rounded(self, seed: int = 0) -> SlotCall:
        """With inputs that are off by about the rounding of the call's type."""
        eps = torch.finfo(self.dtype).eps
        generator = torch.Generator().manual_seed(seed)

        def near(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x
            noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
            return (x.double() * (1 + eps * noise)).to(x.dtype)

        context = None if self.context is None else mapped(self.context, near)
        return replace(self, q=near(self.q), k=near(self.k), v=near(self.v), context=context)


@contextlib.contextmanager
def watched(
    modules: Sequence[Attention], most: int, order: random.Random
) -> Iterator[list[SlotCall]]:
    """In the block, draw some of every module's calls; they are in the list at its end.

    Which calls is decided as they happen, weighted by their queries, so a call is kept that the
    outcome hangs on, and nobody can know which.

    Args:
        modules: the slots.
        most: calls that are kept of each.
        order: for the draw.
    """
    watchers = [_Watcher(module, most, order) for module in modules]
    calls: list[SlotCall] = []
    try:
        yield calls
    finally:
        for watcher in watchers:
            watcher.leave()
        calls.extend(call for watcher in watchers for _, call in watcher.kept)


class _Watcher:
    """Draws calls of one module: weighted sampling from a stream (Efraimidis, Spirakis 2006)."""

    def __init__(self, module: Attention, most: int, order: random.Random) -> None:
        self.kept: list[tuple[float, SlotCall]] = []
        self._most, self._order = most, order
        self._pending: list[tuple[float, dict[str, Any]] | None] = []
        self._handles = [
            module.register_forward_pre_hook(self._before, with_kwargs=True),
            module.register_forward_hook(self._after, with_kwargs=True),
        ]

    def leave(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _before(self, module: Attention, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = dict(zip(_NAMES, args, strict=False)) | named
        q = given["q"]
        rank = self._order.random() ** (1 / max(1, q.shape[0] * q.shape[-2]))
        if len(self.kept) >= self._most and rank <= min(r for r, _ in self.kept):
            self._pending.append(None)
            return
        kind = q.device.type
        context = given.get("context")
        self._pending.append(
            (
                rank,
                {
                    **{name: given[name].detach().clone() for name in "qkv"},
                    "context": mapped(context, _copied) if context is not None else None,
                    "training": module.training,
                    "autocast": torch.get_autocast_dtype(kind)
                    if torch.is_autocast_enabled(kind)
                    else None,
                },
            )
        )

    def _after(
        self, module: Attention, args: tuple[Any, ...], named: dict[str, Any], out: Tensor
    ) -> None:
        pending = self._pending.pop()
        if pending is None:
            return
        rank, given = pending
        self.kept.append((rank, SlotCall(module=module, out=out.detach().clone(), **given)))
        self.kept.sort(key=lambda one: one[0], reverse=True)
        del self.kept[self._most :]


def mapped(context: AttentionContext, change: Callable[[Tensor], Tensor]) -> AttentionContext:
    """Every tensor of a context changed; what was one tensor stays one."""
    done: dict[int, Tensor] = {}
    changed: dict[str, Any] = {}
    for field in fields(context):
        x = getattr(context, field.name)
        if isinstance(x, Tensor):
            if id(x) not in done:
                done[id(x)] = change(x)
            changed[field.name] = done[id(x)]
    return replace(context, **changed)


def _copied(x: Tensor) -> Tensor:
    return x.detach().clone()
