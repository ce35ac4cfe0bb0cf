"""Whole layers of ours beside those of CAB's library, in one process and in turns.

    git clone https://github.com/Shark-NLP/CAB        # needs einops and opt_einsum
    CAB_LIBRARY=CAB/efficient-attention python -m benchmarks.attentions.cab_library \
        [--attn softmax-exact] [--pattern CS] [--length 1024] [--threads 1] [--rounds 15] [--eval]

A layer is the projections and the attention between them, with CAB's settings: forward and backward
from tokens (2, L, 512), 8 heads of 64, float32, without masks of padding and without dropout. Both
get fresh inputs for every call, in an order drawn anew for every round, and a ratio is taken within
a round: below one, ours is faster. Wall time says what a user waits for, and the CPU time of the
process hardly notices what else the machine does.

Layers train, so that Performer draws its directions in every pass, ours orthogonal ones and CAB's
independent ones; with ``--eval`` they are drawn once. CAB's causal ABC computes something else
(ERRATA.md, C1), and its S4D projects nothing but its output.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import random
import sys
import time
from dataclasses import dataclass
from types import ModuleType

import torch
from rich.console import Console

from benchmarks.attentions.cab_layers import (
    EMBED,
    HEADS,
    build,
    load_library,
    names,
    peer,
    prepare,
)
from benchmarks.printing import median_and_quartiles, plain_table
from benchmarks.timing import Call, paired, spread
from cab import Pattern
from runners.efficiency.memory import keep_freed_memory
from runners.efficiency.neighbours import Neighbours

BATCH = 2
LENGTHS = (256, 512, 1024, 2048)
ROUNDS = 15
LEAST_ROUNDS = 5
BUDGET_S = 20.0
"""For the rounds of one entry, pattern and length."""


def main() -> int:
    """Compare, and print a line as soon as it is known."""
    asked = _parser().parse_args()
    folder = os.environ.get("CAB_LIBRARY", "")
    if not folder:
        sys.exit("CAB_LIBRARY does not say where CAB's library is (its folder efficient-attention)")
    library = load_library(folder)
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    neighbours, points = Neighbours(), []
    for name in asked.attn or names():
        for pattern in map(Pattern.parse, asked.pattern or ("NS", "CS", "NC", "CC")):
            if peer(name, pattern) is None:
                continue
            for length in asked.length or LENGTHS:
                point = measure(library, name, pattern, length, asked.rounds, not asked.eval)
                points.append(point)
                print(f"{name} {pattern.abbreviation} L={length}: {point.summary()}", flush=True)
    print(f"\nB={BATCH}, E={EMBED}, H={HEADS}, {asked.threads} threads; ours / CAB's by round")
    Console(width=140, no_color=True, highlight=False).print(_table(points))
    others = neighbours.cores()
    print(f"others kept {'?' if others is None else f'{others:.2f}'} cores busy")
    return 0


@dataclass(frozen=True)
class Point:
    """Seconds of both layers, round for round."""

    name: str
    pattern: Pattern
    length: int
    wall_s: tuple[list[float], list[float]]
    cpu_s: tuple[list[float], list[float]]

    def summary(self) -> str:
        """Ratios of wall and CPU time with their quartiles."""
        wall, cpu = (median_and_quartiles(spread(paired(*s))) for s in (self.wall_s, self.cpu_s))
        return f"wall {wall}, cpu {cpu}, {len(self.wall_s[0])} rounds"


def measure(
    library: ModuleType, name: str, pattern: Pattern, length: int, rounds: int, train: bool
) -> Point:
    """Time both layers in turns."""
    torch.manual_seed(length)
    layers = build(library, name, pattern, length)
    for layer in (layers.ours, layers.theirs):
        layer.train(train)
    calls = [
        functools.partial(prepare, attend, pattern, BATCH, length)
        for attend in (layers.attend_ours, layers.attend_theirs)
    ]
    for call in calls:  # the first of a shape prepares kernels
        call()()
    one = sum(_seconds(call())[0] for call in calls)
    rounds = max(LEAST_ROUNDS, min(rounds, int(BUDGET_S / one)))
    order = random.Random(length)
    wall_s: tuple[list[float], list[float]] = ([], [])
    cpu_s: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for who in order.sample((0, 1), 2):
            wall, cpu = _seconds(calls[who]())
            wall_s[who].append(wall)
            cpu_s[who].append(cpu)
    gc.enable()
    return Point(name, pattern, length, wall_s, cpu_s)


def _seconds(call: Call) -> tuple[float, float]:
    """Wall time, and that of all threads on the cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def _table(points: list[Point]) -> object:
    table = plain_table(
        "", "attention", "L", "rounds", "ours ms", "CAB's ms", "wall [quartiles]", "CPU [quartiles]"
    )
    table.title = None
    for point in points:
        ours, theirs = (1e3 * spread(s).median for s in point.wall_s)
        wall, cpu = (median_and_quartiles(spread(paired(*s))) for s in (point.wall_s, point.cpu_s))
        table.add_row(
            f"{point.name} {point.pattern.abbreviation}", str(point.length),
            str(len(point.wall_s[0])), f"{ours:.1f}", f"{theirs:.1f}", wall, cpu,
        )  # fmt: skip
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attn", action="append", choices=names(), help="default: all")
    parser.add_argument("--pattern", action="append", help="default: all that both have")
    parser.add_argument("--length", type=int, action="append", help=f"default: {LENGTHS}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="most of a point")
    parser.add_argument("--eval", action="store_true", help="layers that do not train")
    return parser


if __name__ == "__main__":
    sys.exit(main())
