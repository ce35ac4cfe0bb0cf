"""What the measuring itself adds to the wall time of a sweep.

    python -m benchmarks.overhead [--attn lla] [--pattern CS] [--threads 1]

A sweep as ``cab bench`` makes it: candidate, softmax and softmax-exact in turns over six lengths
and three phases. Its time goes to the calls, to their inputs (in decoding to contexts), which any
benchmark must make, and to the rest: clocks, turns, the witness. Held: the rest is below a tenth of
the wall time. Told beside it: comparing with the reference, which happens outside of the sweep.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

import torch

import cab
from cab.controls import BASELINE, EXACT
from runners.efficiency.calls import PHASES, CallFactory
from runners.efficiency.judge import Judge
from runners.efficiency.latency import measure_latency
from runners.efficiency.memory import keep_freed_memory
from runners.efficiency.settings import EfficiencySettings

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
HEADS, DIM = 4, 32
BOUND = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attn", default="linear-elu")
    parser.add_argument("--pattern", default="causal-self")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    lengths = tuple(n for n in LENGTHS if n <= asked.longest)
    settings = EfficiencySettings(lengths, 1, HEADS, DIM, torch.float32, 0.5, 40)

    def build(name: str) -> cab.Attention:
        torch.manual_seed(0)
        return cab.attention(
            name, pattern=asked.pattern, heads=HEADS, head_dim=DIM, embed_dim=HEADS * DIM,
            max_length=2 * LENGTHS[-1],
        ).eval()  # fmt: skip

    candidate = build(asked.attn)
    baselines = {name: build(name) for name in (BASELINE, EXACT)}
    order, generator = random.Random(0), torch.Generator().manual_seed(0)
    judge = Judge(candidate, lambda: build(asked.attn), order, patience=0.2)
    calls_s = inputs_s = wall_s = judged_s = 0.0
    for phase in PHASES:
        for length in lengths:
            calls = CallFactory(settings, length, phase, torch.device("cpu"), generator, order)
            found = measure_latency(candidate, baselines, calls, settings, order)
            calls_s += found.calls_seconds
            inputs_s += found.inputs_seconds
            wall_s += found.wall_seconds
            began = time.perf_counter()
            assert found.witness is not None
            judge.check(found.witness, decoding=phase == "decode")
            judged_s += time.perf_counter() - began
    rest = wall_s - calls_s - inputs_s
    print(f"{asked.attn}, {asked.pattern}, lengths {lengths[0]}..{lengths[-1]}: {wall_s:.1f} s")
    for name, seconds in (("calls", calls_s), ("inputs", inputs_s), ("measuring", rest)):
        print(f"{name:10s} {seconds:8.2f} s  {100 * seconds / wall_s:5.1f} %")
    print(f"checking   {judged_s:8.2f} s, beside the sweep ({100 * judged_s / wall_s:.1f} % of it)")
    return rest > BOUND * wall_s


if __name__ == "__main__":
    sys.exit(main())
