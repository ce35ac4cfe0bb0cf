"""Energy of a call, by the GPU's own counter.

NVML's total energy counter (Volta and later) moves about every tenth of a second, so a call is
repeated until a window of seconds is full and the difference is divided. Power readings are not
integrated: they sample a small part of the time. The idle draw is counted over a window of its own,
so that energy is told with it (gross) and without it (net). A CPU's counters need rights that a
benchmark should not have: there energy is not available.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from runners.efficiency.nvml import nvml_of
from runners.outcome import UnsupportedError

Counter = Callable[[], float]
"""Joules since some moment"""


@dataclass(frozen=True)
class Energy:
    """Joules of one call."""

    gross: float
    net: float
    """Without what the device would have drawn at rest"""
    calls: int
    seconds: float
    """Length of the window"""


def energy_counter(device: torch.device) -> Counter:
    """NVML's counter of a CUDA device.

    Raises:
        UnsupportedError: there is none; says why.
    """
    try:
        pynvml, handle = nvml_of(device)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except UnsupportedError as error:
        raise UnsupportedError(f"energy is {error}") from None
    except pynvml.NVMLError as error:  # before Volta there is no counter
        raise UnsupportedError(f"energy is not available: {error}") from None
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3


def idle_watts(
    counter: Counter, seconds: float, wait: Callable[[float], None] = time.sleep
) -> float:
    """Power drawn while nothing runs.

    Args:
        counter: of the device.
        seconds: length of the window.
        wait: lets time pass.
    """
    began, before = time.monotonic(), counter()
    wait(seconds)
    return (counter() - before) / (time.monotonic() - began)


def measure_energy(
    counter: Counter,
    call: Callable[[], object],
    synchronize: Callable[[], object],
    idle: float,
    seconds: float,
) -> Energy:
    """Repeat a call for at least so many seconds.

    Args:
        counter: of the device.
        call: one call; it may queue work.
        synchronize: waits until all queued work is done.
        idle: watts at rest.
        seconds: shortest window.
    """
    call()
    synchronize()
    calls, began, before = 0, time.monotonic(), counter()
    while (elapsed := time.monotonic() - began) < seconds:
        # In bunches that grow: the clock is looked at rarely, the queue never gets long.
        for _ in range(max(1, calls // 10)):
            call()
            calls += 1
        synchronize()
    joules = counter() - before
    return Energy(joules / calls, (joules - idle * elapsed) / calls, calls, elapsed)
