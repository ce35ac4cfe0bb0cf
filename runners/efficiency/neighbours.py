"""What else the machine did while something was timed, and when that was too much."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

NOISY_CORES = 0.25
"""Cores that others kept busy; more than that and times say something about them."""
NOISY_SPREAD = 0.15
"""Interquartile range over median of a baseline's calls (torch.utils.benchmark warns from 0.1, of
calls that are not taken in turns)."""

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)
"""Fields of the first line of /proc/stat: user, nice, system, irq, softirq, steal."""


class Neighbours:
    """Cores that others kept busy since this was made.

    One busy neighbour slows a mechanism of many short parallel steps far more than a large matrix
    product: at the end of each step all threads wait for the one that has lost its core. Ratios
    that were measured then say more about the neighbour.
    """

    def __init__(self) -> None:
        """Start to watch."""
        self._start = (time.perf_counter(), _busy_seconds(), _own_seconds())

    def cores(self) -> float | None:
        """Mean number; None where the system does not say (no Linux)."""
        began, busy, own = self._start
        now_busy = _busy_seconds()
        if busy is None or now_busy is None:
            return None
        elapsed = time.perf_counter() - began
        return max(0.0, now_busy - busy - (_own_seconds() - own)) / elapsed


def relative_spread(samples: Sequence[float]) -> float | None:
    """Interquartile range over median; None of fewer than four."""
    if len(samples) < 4:
        return None
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / middle if middle else None


def is_noisy(others: float | None, spreads: Iterable[float | None]) -> bool:
    """Whether the machine did too much else, or calls that should take the same did not."""
    known = [s for s in spreads if s is not None]
    return bool((others or 0.0) > NOISY_CORES or (known and max(known) > NOISY_SPREAD))


def _busy_seconds() -> float | None:
    try:
        fields = _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return None
    return sum(int(fields[i]) for i in _BUSY) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
