"""A short efficiency cell, in the process where it is called."""

import json
import random
from dataclasses import dataclass, replace

import torch

from cab.controls import COSTS
from cab.request import Request
from cab.schema import Status
from runners.efficiency.plan import bench_plan
from runners.efficiency.runner import run_efficiency
from runners.efficiency.settings import EfficiencySettings
from runners.gate import note_passed
from runners.outcome import describe


@dataclass
class Result:
    """How it ended."""

    error: str
    """Of the cell, or of the first point that ended as one"""
    latencies: list


def bench(target, phase, device):
    """Of causal self attention at two lengths."""
    torch.set_num_threads(1)
    settings = EfficiencySettings(
        (256, 512), 1, 2, 16, torch.float32, 0.05, 8, cell_seconds=60.0, phases=(phase,),
        threads=1,
    )  # fmt: skip
    request = Request(
        attentions=[target], patterns=["causal-self"], seeds=1, device=device, measures=COSTS
    )
    (cell,) = bench_plan(request, [settings], machine="").cells
    cell = replace(
        cell,
        settings=json.loads(json.dumps(cell.settings)),
        measures=("latency",),
        # Which call is looked at is drawn: it may not be the same in every run of the tests.
        seed=random.SystemRandom().randrange(1 << 16),
    )
    # The runner's own judge is under attack, not the contract's checks before it.
    note_passed(cell)
    latencies, errors = [], []

    def report(*, done, loss=None, rows=None, artifacts=None):
        timed = [row for row in rows or [] if row.metric == "latency"]
        latencies.extend(row.value for row in timed if row.value is not None)
        errors.extend(row.message for row in timed if row.status == Status.ERROR)

    try:
        run_efficiency(cell, report)
    except Exception as error:
        return Result(describe(error), latencies)
    return Result(errors[0] if errors else "", latencies)
