"""A short efficiency cell, in the process where it is called."""

import json
import random
from dataclasses import dataclass, replace

import torch

from runners.efficiency.plan import bench_plan
from runners.efficiency.runner import run_efficiency
from runners.efficiency.settings import EfficiencySettings
from runners.outcome import describe


@dataclass
class Result:
    """How it ended."""

    error: str
    latencies: list


def bench(target, phase, device):
    """Of causal self attention at two lengths."""
    torch.set_num_threads(1)
    settings = EfficiencySettings(
        (256, 512), 1, 2, 16, torch.float32, 0.05, 8, cell_seconds=60.0, phases=(phase,),
        threads=1,
    )  # fmt: skip
    (cell,) = bench_plan(
        [target], ["causal-self"], settings, processes=1, device=device, machine="", options={}
    ).cells
    cell = replace(
        cell,
        settings=json.loads(json.dumps(cell.settings)),
        measures=("latency",),
        # Which call is looked at is drawn: it may not be the same in every run of the tests.
        seed=random.SystemRandom().randrange(1 << 16),
    )
    latencies = []

    def report(*, done, loss=None, rows=None, artifacts=None):
        latencies.extend(row.value for row in rows or [] if row.metric == "latency")

    try:
        run_efficiency(cell, report)
    except Exception as error:
        return Result(describe(error), latencies)
    return Result("", latencies)
