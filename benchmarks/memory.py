"""Peak memory in processes of their own, and how a cost grows with the length."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ParamSpec

P = ParamSpec("P")


class FreshProcesses:
    """Runs each measurement in a process in which nothing has run before.

    Memory that earlier calls have freed but the allocator has kept would otherwise hide what a call
    needs. The processes are forked from one that has imported torch and done nothing with it.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch"])
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

    def run(self, measure: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
        """What a function of a module gives in a fresh process."""
        return self._pool.submit(measure, *args, **kwargs).result()


def fits(needed: int) -> bool:
    """Whether a call may be tried: it leaves half of what is free."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return needed <= int(line.split()[1]) * 1024 // 2
    return True


def growth_exponent(costs: Mapping[int, float]) -> float:
    """Slope of the logarithm of a cost over that of the length, by least squares."""
    x = [math.log(length) for length in costs]
    y = [math.log(cost) for cost in costs.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)
