"""What a compiler cannot trace stays as it is, so that a model around it compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: under ``torch.compile`` the graph ends before the call and begins anew after it.

    ``torch.compiler.disable`` as a decorator would import the compiler, a second and more, for all
    who never compile; here it is asked for while a compiler traces.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            outside: Callable[P, R] = torch.compiler.disable(function)
            return outside(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped
