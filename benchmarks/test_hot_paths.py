"""What runs often: planning, the store, boards, inputs and traces of timed calls: `make bench`."""

import random
from datetime import UTC, datetime

import pytest
import torch

import cab
from cab.code_hash import code_hash
from cab.request import Request
from cab.schema import Row
from cab.scoring.results import load_results
from cab.store import ResultStore
from runners.efficiency.calls import CallFactory
from runners.efficiency.latency import measure_latency
from runners.efficiency.memory import peak_memory
from runners.efficiency.settings import EfficiencySettings
from runners.efficiency.trace import traced_peak
from runners.planner import make_plan

LENGTH = 1024


@pytest.fixture
def calls():
    settings = EfficiencySettings((LENGTH,), 1, 8, 64, torch.float32, 0.05, 20)
    generator = torch.Generator().manual_seed(0)
    return CallFactory(settings, LENGTH, "forward", torch.device("cpu"), generator)


@pytest.fixture
def softmax():
    return cab.attention("softmax", pattern="NS", heads=8, head_dim=64).eval()


def rows(count):
    return [
        Row(
            cell=f"{i % 20:032x}", kind="efficiency", attention=f"a{i % 5}", pattern="causal-self",
            grade="faithful", attention_options="{}", scale="small", seed=i % 3, phase="forward",
            length_q=256 << (i % 6), length_k=256, metric="latency", value=1.0, unit="s",
            samples=[1.0] * 30, recorded_at=datetime.now(UTC), device="cpu",
        )
        for i in range(count)
    ]  # fmt: skip


def test_plan_of_everything(benchmark):
    request = Request(attentions=["all"], patterns=["all"], measures=("latency",))
    benchmark(make_plan, request, "here")


def test_code_hash_of_a_mechanism(benchmark):
    benchmark(code_hash, "attentions.lla.attention:LocalLinearAttention")


def test_append_a_cell(benchmark, tmp_path):
    store = ResultStore(tmp_path)
    store.prepare()
    benchmark.pedantic(store.append, (rows(100),), rounds=20)


def test_load_results(benchmark, tmp_path):
    store = ResultStore(tmp_path)
    store.prepare()
    for _ in range(50):
        store.append(rows(100))
    benchmark.pedantic(load_results, (store,), rounds=5, warmup_rounds=1)


def test_prepare_a_timed_call(benchmark, calls, softmax):
    benchmark(calls.prepare, softmax)


def test_time_a_point(benchmark, calls, softmax):
    benchmark.pedantic(
        measure_latency,
        (softmax, {"softmax": softmax}, calls, calls.settings, random.Random(0)),
        rounds=5,
    )


def test_peak_memory_of_a_call(benchmark, calls, softmax):
    benchmark.pedantic(lambda: peak_memory(calls.prepare(softmax), calls.device), rounds=5)


def test_traced_memory_of_a_call(benchmark, calls, softmax):
    benchmark.pedantic(lambda: traced_peak(calls.prepare(softmax)), rounds=5)
