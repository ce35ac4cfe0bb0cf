"""Keeps what the kernels' autotuner has found for one length for longer ones.

Tuning runs every configuration several times. At the longest lengths that would take minutes, and
from a few thousand tokens on the best configuration depends on the head dim, not on the length.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

_MODULES = ("forward", "backward_kernels", "decode")


def keep_tuning(tuned: int, lengths: Iterable[int]) -> None:
    """Use the configurations found for lengths of ``tuned`` tokens, a power of two, for others."""
    longer = [length for length in lengths if length > tuned]
    for kernel in _autotuners():
        for key, config in list(kernel.cache.items()):
            for length in longer:
                kernel.cache.setdefault(tuple(length if x == tuned else x for x in key), config)


def _autotuners() -> Iterable[Any]:
    for name in _MODULES:
        module = importlib.import_module(f"attentions.lla.kernels.{name}")
        # Triton's Autotuner by what is used of it: its module has moved between versions.
        yield from (
            x for x in vars(module).values() if hasattr(x, "configs") and hasattr(x, "cache")
        )
