"""Conditions of a measurement: pinned cores, numeric settings, what the GPU's clocks did."""

from __future__ import annotations

import os
from typing import Any

import torch

from runners.efficiency.nvml import nvml_of
from runners.outcome import UnsupportedError


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
