"""Peak memory of one call of a mechanism of the comparison, in the process where it is called."""

from __future__ import annotations

import torch

from benchmarks.lla.mechanisms import MECHANISMS, prepare
from runners.efficiency.memory import peak_memory

_WARM_LENGTH = 256


def peak_bytes(name: str, length: int, phase: str, threads: int) -> int:
    """Above what the process held with the inputs in it."""
    torch.set_num_threads(threads)
    attend, device = MECHANISMS[name].build(), torch.device("cpu")
    # A short call first: what torch allocates once and for all is no cost of the mechanism.
    peak_memory(prepare(attend, min(length, _WARM_LENGTH), phase), device)
    return peak_memory(prepare(attend, length, phase), device)
