"""The efficiency runner against mechanisms that cheat it: each is caught."""

import os
import re
from pathlib import Path

import pytest
import torch

from tests.attacks.bench import bench
from tests.attacks.processes import DiedError, alone

MECHANISMS = Path(__file__).with_name("mechanisms.py")

WRONG = "differs from the reference"
FAST = "(invalid|not judged): .* faster than"
"""Work that is not done takes no time: true of most attacks, so it is a right complaint wherever
it comes first."""

CAUGHT = {
    # Where the call that is looked at missed the cache, the others were too fast.
    "CachesByIdentity": ("forward", [WRONG, FAST]),
    "CachesByShape": ("forward", [WRONG, FAST]),
    "StaleMemory": ("forward", [WRONG, FAST]),
    "WorksInThread": ("forward", [WRONG, FAST, "after it has returned"]),
    "PatchesTime": ("forward", ["replaced time.perf_counter_ns", FAST]),
    "PatchesRunnersClock": (
        "forward",
        ["replaced runners.efficiency.clock.perf_counter_ns", FAST],
    ),
    "PatchesJudge": ("forward", ["replaced Judge.check", FAST]),
    "SlowsBaseline": ("forward", ["replaced torch.nn.functional.scaled_dot_product_attention"]),
    "TakesMoreThreads": ("forward", ["threads from 1 to 3", FAST]),
    "FewerKeys": ("forward", [WRONG, FAST]),
    "ReadsFuture": ("forward", [WRONG]),
    "ReadsFutureWithoutReference": ("forward", ["differs from the other shape"]),
    "Lazy": ("forward", ["returns a Later"]),
    "DetectsShapes": ("forward", [WRONG, FAST]),
    "DetectsShapesWithoutReference": ("forward", ["differs from the other shape", FAST]),
    "SkipsBackward": ("forward_backward", ["gradients differ", FAST]),
    "ForgetsTokens": ("decode", [WRONG, FAST]),
    "ImpossiblyFast": ("forward", [FAST]),
}
"""By attack: the phase in which it pays, and what may rightly be said of it"""


@pytest.mark.parametrize("attack", CAUGHT)
def test_caught(attack):
    phase, complaints = CAUGHT[attack]
    result = alone(bench, f"{MECHANISMS}:{attack}", phase, "cpu")
    # On a busy machine what is too fast may be left unjudged; its times do not count either way.
    assert result.error.startswith(("ContractError", "DisturbedError")), result
    assert any(re.search(complaint, result.error) for complaint in complaints), result.error
    assert not result.latencies


@pytest.mark.parametrize("phase", ["forward", "forward_backward", "decode"])
def test_the_honest_one_passes(phase):
    result = alone(bench, f"{MECHANISMS}:Honest", phase, "cpu")
    assert result.error == ""
    assert len(result.latencies) == 2


def test_a_death_is_its_own_alone():
    with pytest.raises(DiedError, match="exit code 3"):
        alone(os._exit, 3)
    assert alone(abs, -2) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="streams need a GPU")
def test_work_in_another_stream_is_caught():
    result = alone(bench, f"{MECHANISMS}:WorksInStream", "forward", "cuda")
    assert WRONG in result.error
