"""Autograd functions whose backward pass cannot be differentiated again say so.

A backward pass written by hand works on saved intermediate results, which autograd does not trace:
a gradient penalty or a Hessian would lack terms. ``torch.autograd.function.once_differentiable``
raises only where the incoming gradient itself requires one, so the second derivatives of a sum, or
those along another path of the same network, come out wrong without a word.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradients = Tensor | None | tuple[Tensor | None, ...]


class SecondDerivativeError(NotImplementedError):
    """A gradient of a gradient was asked of a mechanism that has first derivatives only."""


def first_derivatives_only(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Decorator of the ``backward`` of an autograd function that saves its inputs or its outputs.

    Its gradients can be used as they are. Differentiating them (``create_graph=True``) raises
    `SecondDerivativeError`.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Tensor) -> Gradients:
        with torch.no_grad():
            found = backward(ctx, *gradients)
        if not torch.is_grad_enabled():
            return found
        several = found if isinstance(found, tuple) else (found,)
        # All that the gradients depend on: autograd passes over a node that leads to nothing which
        # a derivative is asked for.
        origins = [x for x in (*ctx.saved_tensors, *gradients) if x is not None and x.requires_grad]
        slots = [i for i, x in enumerate(several) if x is not None]
        own = [x.detach().requires_grad_() for x in several if x is not None]
        apply: Any = _Refuse.apply
        refused = dict(zip(slots, apply(len(own), *own, *origins), strict=True))
        result = tuple(refused.get(i) for i in range(len(several)))
        return result if isinstance(found, tuple) else result[0]

    return wrapped


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise SecondDerivativeError(
            "this mechanism's fast path has first derivatives only, and a gradient of its gradient "
            "was asked for (create_graph=True: a gradient penalty, a Hessian). Call the module's "
            "`reference` in the place of the module: it computes the same in plain torch "
            "operations, which have derivatives of every order"
        )
