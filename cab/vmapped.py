"""`torch.func.vmap` over a mechanism: the mapped dimension is more rows of the batch.

Rows of a batch do not influence each other, so a call that is mapped over one more dimension is the
call on a larger batch. Mechanisms choose by their inputs, gather by index and have backward passes
written by hand, which vmap cannot trace; at the door of `cab.Attention` nothing of it has to be.
Mapping over parameters (``torch.func.functional_call`` on stacked ones) is left to torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from cab.attention_context import AttentionContext

_TOKENS = ("q", "k", "v", "context")
_MARK = "mapped_dimensions_are_rows"


def mapped_dimensions_are_rows(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The method ``function(self, q, k, v, context)``, called once where `torch.func.vmap` maps."""
    if getattr(function, _MARK, False):
        return function

    @functools.wraps(function)
    def method(self: nn.Module, *args: Any, **options: Any) -> Tensor:
        if not torch._C._are_functorch_transforms_active():
            return function(self, *args, **options)
        given = dict(zip(_TOKENS, args, strict=False)) | options
        context: AttentionContext | None = given.get("context")
        tensors = {name: x for name, x in given.items() if isinstance(x, Tensor)}
        inner = {} if context is None else _tensors_of(context)
        every = [*tensors.values(), *inner.values()]
        if not _is_mapped(*every) or _is_mapped(*self.parameters()):
            return function(self, *args, **options)

        def call(*rows: Tensor) -> Tensor:
            folded = given | dict(zip(tensors, rows, strict=False))
            if context is not None:
                of_context: Any = dict(zip(inner, rows[len(tensors) :], strict=True))
                folded["context"] = replace(context, **of_context)
            first = [folded.pop(name) for name in _TOKENS if name in folded]
            return function(self, *first, **folded)

        out: Tensor = _Rows.apply(call, *every)  # type: ignore[no-untyped-call]  # apply is not annotated in torch
        return out

    setattr(method, _MARK, True)
    return method


def _is_mapped(*tensors: Tensor) -> bool:
    return any(torch._C._functorch.is_batchedtensor(x) for x in tensors)


def _tensors_of(context: AttentionContext) -> dict[str, Tensor]:
    found = {x.name: getattr(context, x.name) for x in fields(context)}
    return {name: x for name, x in found.items() if isinstance(x, Tensor)}


class _Rows(torch.autograd.Function):
    """A call whose mapped dimension is folded into the batch; autograd sees what is called then."""

    @staticmethod
    def forward(call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return call(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: Callable[..., Tensor], *tensors: Tensor
    ) -> tuple[Tensor, int]:
        count = info.batch_size
        front = [
            x if dim is None else x.movedim(dim, 0)
            for x, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        batch = front[0].shape[-4]
        rows = [
            _folded(x, count, batch, mapped=dim is not None)
            for x, dim in zip(front, in_dims[1:], strict=True)
        ]
        return call(*rows).unflatten(0, (count, batch)), 0


def _folded(x: Tensor, count: int, batch: int, *, mapped: bool) -> Tensor:
    """(count B, ..) of (count, B, ..) where mapped, else of (B, ..); a vector is of all rows."""
    if not mapped:
        if x.ndim == 1:
            return x
        x = x.expand(count, *x.shape)
    elif x.ndim == 2 and x.shape[0] == count:  # (count, L) positions of all rows of each
        x = x[:, None].expand(count, batch, -1)
    return x.flatten(0, 1)
