"""Mechanisms that need more precision than automatic mixed precision would leave them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: run with ``torch.autocast`` off on the device of the first tensor argument.

    Autocast would take single matrix products of a solve in bfloat16. Dtypes stay those of the
    inputs; the function decides what to compute in.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        tensor = next(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        with torch.autocast(tensor.device.type, enabled=False):
            return function(*args, **kwargs)

    return wrapped
