"""Peak memory of forward and backward, in the process where it is called."""

from __future__ import annotations

import torch

from benchmarks.attentions.entries import OURS, Case, build, prepare
from cab.patterns import Pattern
from runners.efficiency.memory import peak_memory

_WARM_LENGTH = 256


def peak_bytes(name: str, pattern: Pattern, length: int, threads: int) -> int:
    """Of our form, above what the process held with the inputs in it."""
    torch.set_num_threads(threads)
    attend, device = build(Case(name, pattern))[OURS], torch.device("cpu")
    # A short call first: what torch allocates once and for all is no cost of the mechanism.
    peak_memory(prepare(attend, 1, _WARM_LENGTH), device)
    return peak_memory(prepare(attend, 1, length), device)
