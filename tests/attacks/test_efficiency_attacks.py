"""The efficiency runner against mechanisms that cheat it: each is caught."""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.attacks.bench import bench

MECHANISMS = Path(__file__).with_name("mechanisms.py")

CAUGHT = {
    # Where the call that is looked at missed the cache, the others were too fast.
    "CachesByIdentity": ("forward", "differs from the reference|invalid: .* faster than"),
    "CachesByShape": ("forward", "differs from the reference|invalid: .* faster than"),
    "StaleMemory": ("forward", "differs from the reference"),
    "WorksInThread": ("forward", "differs from the reference|after it has returned"),
    "PatchesTime": ("forward", "replaced time.perf_counter_ns"),
    "PatchesRunnersClock": ("forward", "replaced runners.efficiency.clock.perf_counter_ns"),
    "PatchesJudge": ("forward", "replaced Judge.check"),
    "SlowsBaseline": ("forward", "replaced torch.nn.functional.scaled_dot_product_attention"),
    "TakesMoreThreads": ("forward", "threads from 1 to 3"),
    "FewerKeys": ("forward", "differs from the reference"),
    "ReadsFuture": ("forward", "differs from the reference"),
    "ReadsFutureWithoutReference": ("forward", "differs from the other shape"),
    "Lazy": ("forward", "returns a Later"),
    "DetectsShapes": ("forward", "differs from the reference"),
    "DetectsShapesWithoutReference": ("forward", "differs from the other shape"),
    "SkipsBackward": ("forward_backward", "gradients differ"),
    "ForgetsTokens": ("decode", "differs from the reference"),
    "ImpossiblyFast": ("forward", "invalid: .* faster than"),
}
"""By attack: the phase in which it pays, and what is said of it"""


@pytest.fixture(scope="module")
def processes():
    """An attack changes the process it runs in: each gets one of its own."""
    context = multiprocessing.get_context("forkserver")
    # With what torch would otherwise import anew at the first backward pass of each.
    context.set_forkserver_preload(["tests.attacks.bench", "torch.fx.experimental.symbolic_shapes"])
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        yield pool


@pytest.mark.parametrize("attack", CAUGHT)
def test_caught(processes, attack):
    phase, complaint = CAUGHT[attack]
    result = processes.submit(bench, f"{MECHANISMS}:{attack}", phase, "cpu").result()
    assert result.error.startswith("ContractError"), result
    assert re.search(complaint, result.error), result.error
    assert not result.latencies


@pytest.mark.parametrize("phase", ["forward", "forward_backward", "decode"])
def test_the_honest_one_passes(processes, phase):
    result = processes.submit(bench, f"{MECHANISMS}:Honest", phase, "cpu").result()
    assert result.error == ""
    assert len(result.latencies) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams need a GPU")
def test_work_in_another_stream_is_caught(processes):
    result = processes.submit(bench, f"{MECHANISMS}:WorksInStream", "forward", "cuda").result()
    assert "differs from the reference" in result.error
