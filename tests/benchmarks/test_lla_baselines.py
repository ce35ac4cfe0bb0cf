"""The forms that Local Linear Attention is measured against compute what it is defined as."""

import math
import subprocess
import sys
import time

import pytest
import torch

from attentions.lla.reference import local_linear_regression
from attentions.shared.exact import exact_softmax_attention
from benchmarks.lla import baselines
from benchmarks.lla.mechanisms import MECHANISMS, OURS, PHASES, prepare
from benchmarks.memory import growth_exponent
from benchmarks.neighbours import Neighbours
from benchmarks.timing import Race, paired, spread

LENGTH, DIM = 23, 5


def draw(heads=2):
    generator = torch.Generator().manual_seed(3)
    shape = (heads, LENGTH, DIM)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def causal():
    return torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


@pytest.mark.parametrize("form", [baselines.covariance_einsum, baselines.every_difference])
@pytest.mark.parametrize("ridge", [1.0, 0.05])
def test_local_linear_forms(form, ridge):
    q, k, v = draw()
    ridges = torch.full((2,), ridge, dtype=torch.float64)
    want = local_linear_regression(q[None], k[None], v[None], causal(), ridges, scale=DIM**-0.5)[0]
    torch.testing.assert_close(form(q, k, v, ridge), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", [baselines.naive_softmax, baselines.fused_softmax])
def test_softmax_forms(form):
    q, k, v = draw()
    want = exact_softmax_attention(q[None], k[None], v[None], causal())[0]
    torch.testing.assert_close(form(q, k, v), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("phase", PHASES)
def test_every_mechanism_can_be_called(name, phase):
    out = prepare(MECHANISMS[name].build(), 16, phase)()
    assert out.isfinite().all()


def test_ours_is_what_the_baselines_compute():
    torch.manual_seed(0)
    q, k, v = (torch.randn(4, 64, 32) for _ in range(3))
    want = baselines.covariance_einsum(*(t.double() for t in (q, k, v)))
    with torch.no_grad():
        got = MECHANISMS[OURS].build()(q, k, v)
    torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


def test_estimates_cover_what_a_call_must_hold():
    pairs = 4 * 4 * 1000**2
    assert MECHANISMS["differences"].peak_bytes(1000, "forward") > 2 * 32 * pairs
    assert MECHANISMS["einsum"].peak_bytes(1000, "forward_backward") > 3 * pairs
    assert MECHANISMS[OURS].peak_bytes(1000, "forward") == 0


def test_race_runs_each_contender_in_its_rounds():
    calls = []
    contenders = {n: lambda n=n: lambda: calls.append(n) for n in ("slow", "ours", "quick")}
    ticks = iter(range(1, 100))

    def clock(call):
        call()
        return float(next(ticks))

    race = Race(contenders, "ours", {"slow": 2, "ours": 4, "quick": 3}, clock)
    seconds = race.run()
    assert {name: len(s) for name, s in seconds.items()} == {"slow": 2, "ours": 4, "quick": 3}
    assert sorted(calls[:6]) == sorted(["slow", "ours", "quick"] * 2)
    assert calls[-1] == "ours"
    assert sum(map(sum, seconds.values())) == sum(range(1, 10))


def test_race_drops_a_contender_that_takes_too_long():
    contenders = {name: lambda: lambda: None for name in ("slow", "ours")}
    race = Race(contenders, "ours", {"slow": 3, "ours": 3}, lambda call: 10.0, limit=5.0)
    assert race.run() == {"slow": [10.0], "ours": [10.0, 10.0, 10.0]}


def test_ratios_are_taken_within_rounds():
    assert paired([2.0, 6.0], [1.0, 2.0, 5.0]) == [2.0, 3.0]
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_exponent_of_a_power_law():
    peaks = {length: 3.0 * length**1.5 for length in (1024, 2048, 8192)}
    assert math.isclose(growth_exponent(peaks), 1.5)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_neighbours_are_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        neighbours = Neighbours()
        time.sleep(0.6)
        beside = neighbours.cores()
        other.kill()
    assert beside is not None
    assert beside > 0.3
