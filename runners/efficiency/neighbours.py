"""What else the machine did while something was timed."""

from __future__ import annotations

import os
import time
from pathlib import Path

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


def _busy_seconds() -> float | None:
    try:
        fields = _STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return None
    return sum(int(fields[i]) for i in _BUSY) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
