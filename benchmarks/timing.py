"""Seconds of calls that are compared with each other, and ratios of them.

On a machine with neighbours a time means little and a ratio of two calls made moments apart means
much more. So calls are timed in rounds, in an order drawn anew for each, and a ratio is taken
within a round.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Call = Callable[[], Tensor]
"""A call with its inputs made; gives its output."""
Prepare = Callable[[], Call]
"""Draws fresh inputs."""
Clock = Callable[[Call], float]
"""Seconds that a call takes."""

_L2_BYTES = 256 * 2**20
"""Written before a call on a GPU: more than any L2 cache holds, so that the call finds it cold."""


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Ratio of each round that has both: a slow call takes part in the first rounds only."""
    return [a / b for a, b in zip(numerators, denominators, strict=False)]


def cpu_seconds(call: Call) -> float:
    """Wall time."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processor_seconds(call: Call) -> float:
    """Processor time of this process, which hardly notices what else a machine does."""
    start = time.process_time()
    call()
    return time.process_time() - start


def cuda_clock() -> Clock:
    """Device time between two events around a call, which finds a cold L2 cache."""
    flush = torch.empty(_L2_BYTES, dtype=torch.int8, device="cuda")

    def seconds(call: Call) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        # While the device writes, the host can launch: its time is hidden where it is short.
        flush.zero_()
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop) * 1e-3

    return seconds


def clock_of(device: torch.device) -> Clock:
    """The clock for calls on a device."""
    return cuda_clock() if device.type == "cuda" else cpu_seconds


class Race:
    """Times contenders in rounds, one of them through a function that is given from outside.

    That one is timed by pytest-benchmark, which calls `setup` before each of its rounds; the others
    are timed there, some before and some after it, as the order of the round has it.
    """

    def __init__(
        self,
        contenders: Mapping[str, Prepare],
        leader: str,
        rounds: Mapping[str, int],
        clock: Clock,
        seed: int = 0,
        limit: float = float("inf"),
    ) -> None:
        """Plan.

        Args:
            contenders: by name.
            leader: the one that is timed from outside; takes part in every round.
            rounds: in how many of the first rounds each takes part.
            clock: for all.
            seed: of the orders.
            limit: seconds after which a contender other than the leader sits out, though its
                rounds were planned: what a busy machine can make of a call is not foreseen.
        """
        self.contenders, self.leader, self.rounds, self.clock = contenders, leader, rounds, clock
        self.limit = limit
        self.seconds: dict[str, list[float]] = {name: [] for name in contenders}
        """By name, round for round."""
        self._order = random.Random(seed)
        self._after: list[str] = []

    def setup(self) -> tuple[tuple[Call], dict[str, object]]:
        """Do what a round does before the leader's turn; arguments of `lead`."""
        self.finish()
        number = len(self.seconds[self.leader])
        turn = [name for name in self.contenders if self._takes_part(name, number)]
        self._order.shuffle(turn)
        place = turn.index(self.leader)
        for name in turn[:place]:
            self._time(name)
        self._after = turn[place + 1 :]
        return (self.contenders[self.leader](),), {}

    def lead(self, call: Call) -> None:
        """The leader's turn."""
        self.seconds[self.leader].append(self.clock(call))

    def finish(self) -> None:
        """Do what the last round has left."""
        for name in self._after:
            self._time(name)
        self._after = []

    def run(self) -> dict[str, list[float]]:
        """All rounds, without anyone from outside."""
        for _ in range(self.rounds[self.leader]):
            (call,), _ = self.setup()
            self.lead(call)
        self.finish()
        return self.seconds

    def _takes_part(self, name: str, number: int) -> bool:
        within = name == self.leader or sum(self.seconds[name]) <= self.limit
        return within and number < self.rounds[name]

    def _time(self, name: str) -> None:
        self.seconds[name].append(self.clock(self.contenders[name]()))


def planned_rounds(
    seconds: Mapping[str, float], budget: float, most: int, least: int = 3
) -> dict[str, int]:
    """Rounds for calls that are expected to take some seconds each: as many as the budget of each
    holds, within bounds.
    """
    return {name: max(least, min(most, int(budget / one))) for name, one in seconds.items()}


def gemm(size: int, device: torch.device, dtype: torch.dtype) -> tuple[Prepare, float]:
    """A square matrix product, to measure what the machine can do; and its FLOPs."""
    a, b, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))

    def product() -> Tensor:
        return torch.mm(a, b, out=out)

    return lambda: product, 2.0 * size**3
