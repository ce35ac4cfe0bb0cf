"""What to say of a mechanism that crashes or breaks a rule, so that its author can mend it."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cab.attention_contract import Attention
from cab.errors import ContractError
from cab.patterns import Pattern
from cab.targets import source_file

_LONGEST = 300
"""Characters of a crash's message that are shown"""
_OTHER_DTYPE = re.compile(r"same dtype|expected scalar type|same type|type .* should be the same")
"""What torch says of two dtypes that meet"""
_CAST = (
    "cast to the weight's dtype what meets a weight, as in "
    "context.query_input.to(self.proj.weight.dtype), and the output to v.dtype"
)


class UnusableError(ContractError):
    """A mechanism of which no other rule has anything to say: it gives no output, or one of another
    shape.
    """


def require_callable(cls: type[Attention]) -> None:
    """A class can be built for a slot, and has a `forward` that takes a call.

    Raises:
        UnusableError: says what to write.
    """
    if cls.forward is Attention.forward:
        raise UnusableError(
            f"{cls.__name__} has no forward: write "
            "def forward(self, q, k, v, context=None), which returns (B, H, Lq, Dv)"
        )
    _require_arguments(cls, cls.__init__, ("spec",), "the constructor")
    _require_arguments(cls, cls.forward, ("q", "k", "v", "context"), "forward")


def _require_arguments(
    cls: type[Attention], method: Callable[..., Any], names: tuple[str, ...], what: str
) -> None:
    signature = inspect.signature(method)
    try:
        signature.bind(None, *names)
    except TypeError as error:
        wanted = "(self, spec), and options with defaults" if what != "forward" else (
            "(self, q, k, v, context=None)"
        )  # fmt: skip
        raise UnusableError(f"{what} takes {signature}: {error}; it must take {wanted}") from None


def crash(error: Exception, cls: type[Attention]) -> str:
    """An exception of a candidate in one line: what, where in its code, and what mends it."""
    message = " ".join(str(error).split())
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]} ..."
    where = place(error, cls)
    said = f"{type(error).__name__}: {message}{f' ({where})' if where else ''}"
    return f"{said}; {_CAST}" if _OTHER_DTYPE.search(message) else said


def place(error: BaseException, cls: type[Attention]) -> str:
    """``mine.py:12``, the innermost line of the class's own file, or of one of its bases', that an
    exception came through; empty where there is none.
    """
    files = {
        str(path.resolve())
        for base in cls.__mro__
        if issubclass(base, Attention) and base is not Attention
        if (path := source_file(base)) is not None
    }
    lines = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in files or str(Path(frame.filename).resolve()) in files
    ]
    if not lines:
        return ""
    file, line = lines[-1]
    path = Path(file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{line}"


def empty_rows(pattern: Pattern, rows: Tensor) -> str:
    """How rows that see no key become zeros.

    Args:
        pattern: of the slot.
        rows: what they are, any shape.
    """
    seen = (
        "(context.key_mask.cumsum(-1) > 0)[:, None, -q.shape[-2]:, None]"
        if pattern is Pattern.CAUSAL_SELF
        else "context.key_mask.any(-1)[:, None, None, None]"
    )
    recipe = f"; where there is a key_mask, end with out.masked_fill(~{seen}, 0)"
    if torch.isnan(rows).any():
        recipe += (
            ", and mask scores with torch.finfo(scores.dtype).min: "
            "a softmax of -inf alone is not a number, and so is its gradient"
        )
    return recipe
