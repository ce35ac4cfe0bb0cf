"""From what went wrong to a typed end of the cell."""

from __future__ import annotations

import torch

from cab.errors import ContractError, UnsupportedPatternError
from cab.schema import Status


class DivergedError(Exception):
    """A loss or an output became infinite or not a number."""


class UnsupportedError(Exception):
    """The candidate cannot run this cell, by rule or by its own word."""


class DisturbedError(Exception):
    """What else the machine did leaves no judgement of a measurement; it is to be repeated."""


class InvalidError(ContractError):
    """The candidate breaks the attention contract in a quality cell: its numbers mean nothing."""


_OOM_WORDS = ("can't allocate memory", "out of memory", "cannot allocate memory")


def status_of(error: BaseException) -> Status:
    """The end that an exception stands for."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Status.OOM
    if isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _OOM_WORDS):
        return Status.OOM
    if isinstance(error, DivergedError):
        return Status.DIVERGED
    if isinstance(error, UnsupportedError | UnsupportedPatternError | NotImplementedError):
        return Status.UNSUPPORTED
    if isinstance(error, ContractError):
        return Status.INVALID
    return Status.ERROR


def describe(error: BaseException) -> str:
    """One line for the message column."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
