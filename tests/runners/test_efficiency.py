"""Latency and memory: agreement with independent measurements and with arithmetic."""

import random

import pytest
import torch

import cab
from cab.schema import Status
from runners.efficiency.calls import CallFactory
from runners.efficiency.latency import measure_latency
from runners.efficiency.memory import peak_memory
from runners.efficiency.settings import EfficiencySettings
from runners.executors.events import Ended
from runners.executors.local import LocalExecutor
from runners.gate import note_passed

MIB = 2**20


def calls(length, phase="forward", heads=8, head_dim=64):
    settings = EfficiencySettings((length,), 1, heads, head_dim, torch.float32, 0.2, 5)
    generator = torch.Generator().manual_seed(0)
    return settings, CallFactory(settings, length, phase, torch.device("cpu"), generator)


def module(name, heads=8, head_dim=64):
    return cab.attention(name, pattern="NS", heads=heads, head_dim=head_dim).eval()


def test_peak_memory_of_plain_softmax_is_its_score_matrix():
    # B=1, H=8, L=2048, D=64 in float32: a 128 MiB matrix and a 4 MiB output.
    _, factory = calls(2048)
    exact = module("softmax-exact")
    factory.prepare(exact)()
    peak = peak_memory(factory.prepare(exact), factory.device)
    assert peak == pytest.approx(132 * MIB, rel=0.03)


def test_peak_memory_of_fused_softmax_has_no_score_matrix():
    _, factory = calls(2048)
    fused = module("softmax")
    factory.prepare(fused)()
    assert peak_memory(factory.prepare(fused), factory.device) < 16 * MIB


def test_every_call_gets_fresh_inputs():
    seen = []

    class Spy(cab.Attention):
        def forward(self, q, k, v, context=None):
            seen.append(q.sum().item())
            return v

    spy = Spy(cab.AttentionSpec(cab.Pattern.NONCAUSAL_SELF, 2, 4))
    settings, factory = calls(32, heads=2, head_dim=4)
    measure_latency(spy, {"spy": spy}, factory, settings, random.Random(0))
    assert len(set(seen)) == len(seen) >= 4


def test_latency_sees_a_slow_mechanism():
    import time

    class Slow(cab.Attention):
        def forward(self, q, k, v, context=None):
            time.sleep(0.02)
            return v

    slow = Slow(cab.AttentionSpec(cab.Pattern.NONCAUSAL_SELF, 2, 4))
    settings, factory = calls(32, heads=2, head_dim=4)
    none = {"none": module("none", 2, 4)}
    samples = measure_latency(slow, none, factory, settings, random.Random(0))
    assert min(samples.candidate) >= 0.02
    assert samples.first_call >= 0.02
    assert len(samples.candidate) == len(samples.samples["none"])
    assert all(ratio > 1 for ratio in samples.ratios("none"))


def test_an_efficiency_cell_measures_all_lengths_and_phases(plan_of):
    (cell,) = plan_of("linear-elu", measures=("latency", "memory"))
    events = []
    LocalExecutor(timeout=240).run([cell], events.append)
    end = events[-1]
    assert isinstance(end, Ended)
    assert end.status is Status.OK, end.message
    for metric in ("latency", "latency_softmax", "latency_ratio", "first_call", "peak_memory"):
        rows = [row for row in end.rows if row.metric == metric]
        assert {(row.phase, row.length_q) for row in rows} == {
            (phase, length)
            for phase in ("forward", "forward_backward")
            for length in (256, 512, 1024)
        }
        assert all(row.value > 0 and row.samples for row in rows)


def test_out_of_memory_ends_the_series_and_is_recorded(candidate, plan_of):
    body = """
        if k.shape[-2] > 300: raise MemoryError
        keep = torch.ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None: keep = context.key_mask
        keep = keep[:, None, :, None].to(v.dtype)
        mean = (v * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True).clamp_min(1)
        return mean.expand(*q.shape[:-1], v.shape[-1])
    """
    (cell,) = plan_of(candidate(body), measures=("memory",))
    note_passed(cell)
    events = []
    LocalExecutor(timeout=240).run([cell], events.append)
    rows = [r for r in events[-1].rows if r.phase == "forward" and r.metric == "peak_memory"]
    assert [(row.length_q, row.status) for row in rows] == [
        (256, "ok"), (512, "oom"), (1024, "oom")
    ]  # fmt: skip
    assert "not tried" in rows[-1].message


def test_the_size_that_could_not_be_had_is_recorded(candidate, plan_of):
    body = """
        if k.shape[-2] > 300: torch.empty(1 << 50, dtype=torch.uint8)
        keep = torch.ones(k.shape[0], k.shape[-2], dtype=torch.bool)
        if context is not None and context.key_mask is not None: keep = context.key_mask
        keep = keep[:, None, :, None].to(v.dtype)
        mean = (v * keep).sum(-2, keepdim=True) / keep.sum(-2, keepdim=True).clamp_min(1)
        return mean.expand(*q.shape[:-1], v.shape[-1])
    """
    (cell,) = plan_of(candidate(body), measures=("latency",))
    note_passed(cell)
    events = []
    LocalExecutor(timeout=240).run([cell], events.append)
    (first, *_) = [row for row in events[-1].rows if row.status == "oom"]
    assert (first.phase, first.length_q) == ("forward", 512)
    assert f"an allocation of {1 << 50} bytes failed" in first.message
    # What is too much for a forward pass is not tried with a backward pass.
    later = [r for r in events[-1].rows if r.phase == "forward_backward" and r.length_q == 512]
    assert [row.status for row in later] == ["oom"]
    assert "not tried" in later[0].message


def test_a_wrong_mechanism_is_not_timed(tmp_path, plan_of):
    path = tmp_path / "wrong.py"
    path.write_text(
        "from attentions.softmax import SoftmaxAttention\n\n\n"
        "class Wrong(SoftmaxAttention):\n"
        "    info = None\n\n"
        "    def forward(self, q, k, v, context=None):\n"
        "        out = super().forward(q, k, v, context)\n"
        "        return out if k.shape[-2] != 128 else out * 1.1\n"
    )
    (cell,) = plan_of(f"{path}:Wrong", measures=("latency",))
    note_passed(cell)
    events = []
    LocalExecutor(timeout=240).run([cell], events.append)
    assert events[-1].status is Status.INVALID
    assert "differs from the reference" in events[-1].message
