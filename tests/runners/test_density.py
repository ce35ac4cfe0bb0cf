"""The density of sparse mechanisms, in trained models and beside what was timed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import cab
from cab import Attention, AttentionSpec, Pattern, Recipe
from cab.density import densities
from cab.schema import Status
from runners.analysis.reads import CALLS, validation_density
from runners.efficiency.reads import density_rows
from runners.efficiency.settings import bench_settings
from runners.executors.local import LocalExecutor
from runners.rows import identity

SIZES = {"block": 8, "window": 2}


class HalfRead(Attention):
    """Says that it reads half of the pairs of its first head and a quarter of the second's."""

    def forward(self, q, k, v, context=None):
        return v

    def density(self, q, k, context=None):
        return torch.tensor([[0.5, 0.25]]).expand(q.shape[0], 2)


def half_read():
    return HalfRead(AttentionSpec(Pattern.CAUSAL_SELF, 2, 4))


class Batches:
    """A task whose validation split has so many batches, of which it counts those it has shown."""

    recipe = Recipe(steps=1, batch_size=1, learning_rate=1.0)

    def __init__(self, count):
        self.count, self.shown = count, 0

    def evaluation_seed(self, seed):
        return 0

    def evaluate(self, model, split, seed):
        assert split == "validation"
        for _ in range(self.count):
            self.shown += 1
            x = torch.randn(2, 2, 16, 4)
            for module in model:
                x = module(x, x, x)
        return {}


def test_a_few_batches_of_the_validation_split_are_looked_at():
    model = nn.ModuleList([half_read(), half_read()])
    task = Batches(100)
    state = torch.random.get_rng_state()
    assert validation_density(task, model, list(model), seed=0) == pytest.approx(0.375)
    assert task.shown == CALLS + 1
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model)
    short = Batches(2)
    assert validation_density(short, model, list(model), seed=0) == pytest.approx(0.375)
    assert short.shown == 2


def test_what_does_not_say_what_it_reads_costs_no_evaluation():
    dense = cab.attention("softmax", pattern="CS", heads=2, head_dim=4)
    task = Batches(3)
    assert validation_density(task, nn.ModuleList([dense]), [dense], seed=0) is None
    assert task.shown == 0
    assert validation_density(task, nn.ModuleList(), [half_read()], seed=0) is None


def test_it_is_the_density_of_the_calls_of_the_model():
    attention = cab.attention("power-attention", pattern="CS", heads=2, head_dim=4, **SIZES)
    model = nn.ModuleList([attention])
    found = validation_density(Batches(1), model, [attention], seed=0)
    q = torch.randn(2, 2, 16, 4)
    with densities(model) as beside:
        attention(q, q, q)
    assert found == beside.mean() == 1.0  # two blocks, both in the window


def points(cell, *lengths):
    template = replace(identity(cell), metric="latency", unit="s")
    return {
        (phase, n): replace(template, phase=phase, length_q=n, length_k=n)
        for n in lengths
        for phase in ("forward", "forward_backward")
    }


def test_every_length_that_was_timed_has_a_density(plan_of):
    (cell,) = plan_of("power-attention", measures=("latency",), pattern="CS")
    cell = replace(cell, options=dict(cell.options) | SIZES)
    rows = density_rows(cell, points(cell, 32, 256))
    assert {row.metric for row in rows} == {"density"}
    assert {row.unit for row in rows} == {"1"}
    of = {(row.phase, row.length_q): row.value for row in rows}
    assert of["forward", 32] == of["forward_backward", 32]
    attention = cab.attention("power-attention", pattern="CS", heads=4, head_dim=16, **SIZES)
    for n in (32, 256):
        q = torch.randn(1, 4, n, 16)
        assert of["forward", n] == pytest.approx(attention.density(q, q).mean().item())
    assert of["forward", 256] < of["forward", 32] <= 1
    (dense,) = plan_of("softmax", measures=("latency",), pattern="CS")
    assert density_rows(dense, points(dense, 32)) == []


@pytest.mark.slow
def test_a_measured_cell_says_what_it_read(plan_of):
    (cell,) = plan_of("power-attention", measures=("latency",), pattern="CS")
    own = replace(
        bench_settings("cpu"), lengths=(64, 128), phases=("forward",), heads=2, head_dim=8,
        seconds=0.01, rounds=1,
    )  # fmt: skip
    cell = replace(cell, settings=own.to_mapping())
    events = []
    LocalExecutor(timeout=240).run([cell], events.append)
    end = events[-1]
    assert end.status is Status.OK, end.message
    found = [row for row in end.rows if row.metric == "density"]
    assert [(row.phase, row.length_q) for row in found] == [("forward", 64), ("forward", 128)]
    assert {row.cell for row in found} == {cell.key}
    assert all(0 < row.value <= 1 and row.samples == [row.value] for row in found)
