"""Peak memory of one call in a process of its own, and how it grows with the length."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import torch

from benchmarks.lla.mechanisms import MECHANISMS, prepare
from runners.efficiency.memory import peak_memory

_WARM_LENGTH = 256


class FreshProcesses:
    """Measures each call in a process in which nothing has run before.

    Memory that earlier calls have freed but the allocator has kept would otherwise hide what a call
    needs. The processes are forked from one that has imported torch and done nothing with it.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pool = ProcessPoolExecutor(1, context, max_tasks_per_child=1)

    def __enter__(self) -> FreshProcesses:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def peak_bytes(self, name: str, length: int, phase: str) -> int:
        """Of a mechanism, above what the process held with the inputs in it."""
        threads = torch.get_num_threads()
        return self._pool.submit(_peak_bytes, name, length, phase, threads).result()


def _peak_bytes(name: str, length: int, phase: str, threads: int) -> int:
    torch.set_num_threads(threads)
    attend, device = MECHANISMS[name].build(), torch.device("cpu")
    # A short call first: what torch allocates once and for all is no cost of the mechanism.
    peak_memory(prepare(attend, min(length, _WARM_LENGTH), phase), device)
    return peak_memory(prepare(attend, length, phase), device)


def fits(needed: int) -> bool:
    """Whether a call may be tried: it leaves half of what is free."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return needed <= int(line.split()[1]) * 1024 // 2
    return True


def growth_exponent(peaks: Mapping[int, float]) -> float:
    """Slope of log memory over log length, by least squares."""
    x = [math.log(length) for length in peaks]
    y = [math.log(peak) for peak in peaks.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)
