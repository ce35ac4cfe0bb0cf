"""Latency as the efficiency runner takes it beside torch.utils.benchmark, in one process.

    python -m benchmarks.agreement [--length 1024] [--threads 1] [--rounds 15] [--device cuda]

Both time the same module in turns, round by round, so that a slow moment of the machine meets both;
the ratio of a round is that of their medians. Held: the median over rounds is within 5 % of one -
or, where others kept the machine busy, the ratio of the fastest calls, which nobody can hurry.
Both get fresh inputs for every call, torch's in the setup of its timer: inputs that are still in
the cache make short calls of some mechanisms up to a tenth faster. On a GPU the other clock is
triton.testing.do_bench, and peak memory is compared with what torch's allocator says of the call.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys

import torch
from torch.utils.benchmark import Timer

import cab
from benchmarks.timing import spread
from runners.efficiency.calls import CallFactory
from runners.efficiency.latency import measure_latency
from runners.efficiency.memory import keep_freed_memory, peak_memory
from runners.efficiency.neighbours import NOISY_CORES, Neighbours
from runners.efficiency.settings import EfficiencySettings

NAMES = ("softmax", "softmax-exact", "linear-elu", "local")
HEADS, DIM = 8, 64
CALLS = 7
BOUND = 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    order, device = random.Random(0), torch.device(asked.device)
    dtype = torch.bfloat16 if asked.device == "cuda" else torch.float32
    settings = EfficiencySettings((asked.length,), 1, HEADS, DIM, dtype, 1e9, CALLS)
    generator = torch.Generator(device).manual_seed(0)
    calls = CallFactory(settings, asked.length, "forward", device, generator, order)
    neighbours, by_median, by_fastest = Neighbours(), 0.0, 0.0
    print(f"L={asked.length}, B=1, H={HEADS}, D={DIM}, {dtype}, {asked.threads} threads")
    for name in NAMES:
        module = cab.attention(name, pattern="NS", heads=HEADS, head_dim=DIM).eval().to(device)
        rounds = [
            _round(module, calls, settings, order, asked.threads) for _ in range(asked.rounds)
        ]
        medians = [(statistics.median(ours), statistics.median(theirs)) for ours, theirs in rounds]
        found = spread([ours / theirs for ours, theirs in medians])
        ours, theirs = (statistics.median(x) * 1e3 for x in zip(*medians, strict=True))
        fastest = min(min(r[0]) for r in rounds) / min(min(r[1]) for r in rounds)
        by_median = max(by_median, abs(found.median - 1))
        by_fastest = max(by_fastest, abs(fastest - 1))
        print(
            f"{name:14s} cab {ours:8.3f} ms   torch {theirs:8.3f} ms   ratio {found.median:.3f} "
            f"[{found.low:.3f}, {found.high:.3f}]   of the fastest {fastest:.3f}"
        )
        if asked.device == "cuda":
            print(f"{'':14s} {_peaks(module, calls)}")
    others = neighbours.cores()
    print(f"others kept {'?' if others is None else f'{others:.2f}'} cores busy")
    busy = (others or 0.0) > NOISY_CORES
    worst = by_fastest if busy else by_median
    print(
        f"largest deviation: medians {100 * by_median:.1f} %, fastest {100 * by_fastest:.1f} %; "
        f"{'within' if worst <= BOUND else 'beyond'} 5 % by the {'fastest' if busy else 'medians'}"
    )
    return worst > BOUND


def _round(
    module: cab.Attention,
    calls: CallFactory,
    settings: EfficiencySettings,
    order: random.Random,
    threads: int,
) -> tuple[list[float], list[float]]:
    """Calls timed by the runner and by torch, in random order."""

    def ours() -> list[float]:
        return measure_latency(module, {}, calls, settings, order).candidate

    def theirs() -> list[float]:
        if calls.device.type == "cuda":
            from triton.testing import do_bench

            return [1e-3 * t for t in do_bench(calls.prepare(module), return_mode="all")]
        timer = Timer(
            "call()", setup="call = prepare()", num_threads=threads,
            globals={"prepare": lambda: calls.prepare(module)},
        )  # fmt: skip
        return [timer.timeit(1).median for _ in range(CALLS)]

    if order.random() < 0.5:
        first = ours()
        return first, theirs()
    second = theirs()
    return ours(), second


def _peaks(module: cab.Attention, calls: CallFactory) -> str:
    """Peak memory by the runner and by torch's allocator, in MiB."""
    ours = peak_memory(calls.prepare(module), calls.device)
    call = calls.prepare(module)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    theirs = torch.cuda.max_memory_allocated() - before
    return f"peak memory: cab {ours / 2**20:.2f} MiB, allocator {theirs / 2**20:.2f} MiB"


if __name__ == "__main__":
    sys.exit(main())
