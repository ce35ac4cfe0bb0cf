"""Latency of a mechanism, measured in turns with softmax in one process.

Timings drift with clocks and neighbours; a ratio of two calls made moments apart does not. So each
round times both, in random order, on fresh inputs. Raw samples are kept and nothing is discarded.
Practice after torch.utils.benchmark (CPU) and triton.testing.do_bench (CUDA events, cold L2).
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from cab import Attention
from runners.efficiency.calls import CallFactory, Prepared
from runners.efficiency.settings import EfficiencySettings

_L2_BYTES = 256 * 2**20
"""Larger than the L2 cache of any current GPU; zeroed before a call, it leaves the cache cold."""


@dataclass(frozen=True)
class LatencySamples:
    """Seconds per call, in the order measured; entry i of both lists is from one round."""

    first_call: float
    """The very first call of the length and phase: compilation, autotuning, page faults."""
    candidate: list[float]
    baseline: list[float]


def measure_latency(
    candidate: Attention,
    baseline: Attention,
    calls: CallFactory,
    settings: EfficiencySettings,
    order: random.Random,
) -> LatencySamples:
    """Time both mechanisms in turns until the budget is spent, at least one round each."""
    clock = _cuda_seconds() if calls.device.type == "cuda" else _cpu_seconds
    first = clock(calls.prepare(candidate))
    clock(calls.prepare(baseline))
    samples: dict[str, list[float]] = {"candidate": [], "baseline": []}
    modules = {"candidate": candidate, "baseline": baseline}
    spent = 0.0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while not samples["candidate"] or (
            spent < settings.seconds and len(samples["candidate"]) < settings.rounds
        ):
            names = list(modules)
            order.shuffle(names)
            for name in names:
                seconds = clock(calls.prepare(modules[name]))
                samples[name].append(seconds)
                spent += seconds
    finally:
        if collecting:
            gc.enable()
    return LatencySamples(first, samples["candidate"], samples["baseline"])


def _cpu_seconds(call: Prepared) -> float:
    start = time.perf_counter_ns()
    out = call()
    stop = time.perf_counter_ns()
    _consume(out)
    return (stop - start) * 1e-9


def _cuda_seconds() -> Callable[[Prepared], float]:
    """Device time of a call between events in its stream, with a cold L2 cache."""
    flush = torch.empty(_L2_BYTES // 4, dtype=torch.int32, device="cuda")

    def seconds(call: Prepared) -> float:
        start = torch.cuda.Event(enable_timing=True)
        stop = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        # The flush also lets the host run ahead, so launch cost is hidden behind it.
        flush.zero_()
        start.record()
        out = call()
        stop.record()
        torch.cuda.synchronize()
        _consume(out)
        return start.elapsed_time(stop) * 1e-3

    return seconds


def _consume(out: torch.Tensor) -> None:
    """Read one number, so that a lazy result would have to be computed."""
    out.flatten()[-1].item()
