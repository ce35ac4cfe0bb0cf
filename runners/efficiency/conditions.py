"""Conditions of a measurement: pinned cores, what the GPU's clocks did, whether neighbours ran."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from runners.efficiency.nvml import nvml_of
from runners.outcome import UnsupportedError

NOISY_CORES = 0.25
"""Cores that others kept busy; more than that and times say something about them."""
NOISY_SPREAD = 0.15
"""Interquartile range over median of a baseline's calls (torch.utils.benchmark warns from 0.1, of
calls that are not taken in turns)."""


def pin_threads(threads: int) -> dict[str, Any]:
    """Run torch with so many threads (0: as it is) on as many fixed cores; for the record.

    Threads that the scheduler may move find their caches cold.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    facts: dict[str, Any] = {"threads": threads}
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, set(allowed[:threads]))
        facts["pinned_cores"] = sorted(os.sched_getaffinity(0))
    return facts


def numeric_settings(device: torch.device) -> dict[str, Any]:
    """What torch was told about precision and kernels."""
    facts: dict[str, Any] = {
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    if device.type == "cuda":
        cuda = torch.backends.cuda
        facts["sdpa_backends"] = [
            name
            for name, on in (
                ("flash", cuda.flash_sdp_enabled()),
                ("memory-efficient", cuda.mem_efficient_sdp_enabled()),
                ("math", cuda.math_sdp_enabled()),
                ("cudnn", cuda.cudnn_sdp_enabled()),
            )
            if on
        ]
    return facts


def gpu_state(device: torch.device) -> dict[str, Any]:
    """Clocks, temperature, power and throttling of a GPU; empty where they cannot be read."""
    if device.type != "cuda":
        return {}
    try:
        pynvml, handle = nvml_of(device)
    except UnsupportedError as error:
        return {"gpu_state": str(error)}
    try:
        return {
            "sm_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "celsius": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "watts": pynvml.nvmlDeviceGetPowerUsage(handle) * 1e-3,
            "throttle_reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }
    except pynvml.NVMLError as error:
        return {"gpu_state": f"not available: {error}"}


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
