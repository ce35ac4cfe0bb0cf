"""Whether a sweep's printed intervals say what repeating it would give.

    python -m benchmarks.repeatability [--repeats 10] [--threads 1] [--lengths 512,1024,2048]

Makes a sweep of three processes, prints its ratios to softmax with their intervals, repeats the
sweep and counts how often a repeated ratio lies within the interval that the others print. Each
sweep in turn is the one that prints. Held: at least nine in ten.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import replace

import torch

from cab.benching.sizes import parse_lengths
from cab.controls import COSTS
from cab.request import Request
from cab.scoring.curves import of_a_repeat
from cab.scoring.intervals import Interval, process_interval
from runners.efficiency.neighbours import Neighbours
from runners.efficiency.plan import bench_plan
from runners.efficiency.settings import EfficiencySettings
from runners.executors.events import Ended, Event
from runners.executors.local import LocalExecutor

PROCESSES = 3
ENOUGH = 0.9
ATTENTIONS = ("softmax-exact", "linear-elu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", default="512,1k,2k")
    parser.add_argument("--seconds", type=float, default=0.6, help="for the calls of one point")
    asked = parser.parse_args()
    settings = EfficiencySettings(
        parse_lengths(asked.lengths), 1, 4, 32, torch.float32, asked.seconds, 60,
        cell_seconds=60.0, phases=("forward",), threads=asked.threads,
    )  # fmt: skip
    neighbours = Neighbours()
    sweeps = [_sweep(settings, number) for number in range(asked.repeats)]
    points = sorted(set.intersection(*(set(sweep) for sweep in sweeps)))
    inside = total = 0
    for point in points:
        hits = [
            printed[point].low <= repeated[point].value <= printed[point].high
            for printed, repeated in itertools.permutations(sweeps, 2)
        ]
        inside, total = inside + sum(hits), total + len(hits)
        first = sweeps[0][point]
        values = ", ".join(f"{sweep[point].value:.3f}" for sweep in sweeps)
        print(
            f"{point[0]:14s} L={point[1]:<5d} {first.value:.3f} ({first.low:.3f} to "
            f"{first.high:.3f}); sweeps: {values}; {sum(hits)} of {len(hits)} inside"
        )
    others = neighbours.cores()
    print(f"others kept {'?' if others is None else f'{others:.2f}'} cores busy")
    print(f"{inside} of {total} repeats ({100 * inside / total:.1f} %) lie within the interval")
    return inside < ENOUGH * total


def _sweep(settings: EfficiencySettings, number: int) -> dict[tuple[str, int], Interval]:
    """Ratio to softmax by attention and length."""
    request = Request(
        attentions=ATTENTIONS, patterns=["noncausal-self"], seeds=PROCESSES, measures=COSTS
    )
    plan = bench_plan(request, [settings], machine="")
    cells = [
        # Other inputs and turns in every sweep.
        replace(
            cell, seed=PROCESSES * number + cell.seed, measures=("latency",),
            settings=json.loads(json.dumps(cell.settings)),
        )
        for cell in plan.cells
    ]  # fmt: skip
    found: dict[tuple[str, int], list[list[float]]] = {}

    def take(event: Event) -> None:
        if isinstance(event, Ended):
            for row in event.rows:
                if row.metric == "latency_ratio" and row.length_q is not None:
                    found.setdefault((row.attention, row.length_q), []).append(row.samples)

    LocalExecutor(timeout=600).run(cells, take)
    return {
        point: of_a_repeat(process_interval(processes))
        for point, processes in found.items()
        if len(processes) == PROCESSES
    }


if __name__ == "__main__":
    sys.exit(main())
