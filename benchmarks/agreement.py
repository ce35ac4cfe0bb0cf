"""Latency as the efficiency runner takes it beside torch.utils.benchmark, in one process.

    python -m benchmarks.agreement [--length 1024] [--threads 1] [--rounds 15]

Both time the same module in turns, round by round, so that a slow moment of the machine meets both;
the ratio of a round is that of their medians. Held: the median over rounds is within 5 % of one.
The runner gives every call fresh inputs and torch the same ones each time, which is part of what is
compared.
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
from runners.efficiency.neighbours import Neighbours
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
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    settings = EfficiencySettings((asked.length,), 1, HEADS, DIM, torch.float32, 1e9, CALLS)
    order, cpu = random.Random(0), torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    calls = CallFactory(settings, asked.length, "forward", cpu, generator, order)
    neighbours, worst = Neighbours(), 0.0
    print(f"L={asked.length}, B=1, H={HEADS}, D={DIM}, float32, {asked.threads} threads")
    for name in NAMES:
        module = cab.attention(name, pattern="NS", heads=HEADS, head_dim=DIM).eval()
        ratios = [
            _round(module, calls, settings, order, asked.threads) for _ in range(asked.rounds)
        ]
        found = spread([ours / theirs for ours, theirs in ratios])
        ours, theirs = (statistics.median(x) * 1e3 for x in zip(*ratios, strict=True))
        worst = max(worst, abs(found.median - 1))
        print(
            f"{name:14s} cab {ours:8.3f} ms   torch {theirs:8.3f} ms   "
            f"ratio {found.median:.3f} [{found.low:.3f}, {found.high:.3f}]"
        )
    others = neighbours.cores()
    print(f"others kept {'?' if others is None else f'{others:.2f}'} cores busy")
    print(f"largest deviation {100 * worst:.1f} %, {'within' if worst <= BOUND else 'beyond'} 5 %")
    return worst > BOUND


def _round(
    module: cab.Attention,
    calls: CallFactory,
    settings: EfficiencySettings,
    order: random.Random,
    threads: int,
) -> tuple[float, float]:
    """Medians of the runner and of torch, in random order."""

    def ours() -> float:
        return statistics.median(measure_latency(module, {}, calls, settings, order).candidate)

    def theirs() -> float:
        timer = Timer("call()", globals={"call": calls.prepare(module)}, num_threads=threads)
        timer.timeit(1)
        return statistics.median(timer.timeit(1).median for _ in range(CALLS))

    if order.random() < 0.5:
        first = ours()
        return first, theirs()
    second = theirs()
    return ours(), second


if __name__ == "__main__":
    sys.exit(main())
