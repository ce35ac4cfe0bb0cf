"""No honest mechanism is taken for a cheat, and the guard leaves no trace."""

import random

import pytest
import torch

import cab
from cab import Pattern, Slots
from cab.registries import TASKS
from runners.guard.calls import watched
from runners.guard.changes import swapped
from runners.guard.guard import guard_built, guard_trained, watching
from runners.guard.parameters import parameter_count
from tests.runners.guarded import load, model_of, run_guarded, short_task

EVERY = [("language-modeling", "CS"), ("summarization", "CC"), ("forecasting", "NC"),
         ("masked-lm", "NS")]  # fmt: skip
"""Where each mechanism that claims the pattern passes: by default every third on one of them, not
the same for all, and the others are slow (every cell of the reference passes the guard as well)"""
SHARES = 3

SOME = [
    ("summarization", "CS"), ("summarization-docstrings", "CC"), ("tts", "CC"), ("tts", "CS"),
    ("tts", "NS"), ("point-completion", "NC"), ("super-resolution", "NS"),
    ("super-resolution-sr3", "NS"), ("associative-recall", "CS"), ("state-tracking", "CS"),
    ("scanpath", "CC"), ("test-time-regression", "CC"), ("in-context-linear-regression", "CS"),
    ("irregular-series", "NC"),
]  # fmt: skip


def everywhere():
    for number, info in enumerate(cab.attentions()):
        claimed = [cell for cell in EVERY if info.grade(Pattern.parse(cell[1]))]
        for place, cell in enumerate(claimed):
            chosen = number % SHARES == 0 and place == number // SHARES % len(claimed)
            marks = () if chosen else pytest.mark.slow
            yield pytest.param(*cell, info.id, marks=marks)


def controls():
    """One of three on each of the other places, in turns; the others are slow."""
    names = ("softmax", "none", "lla")
    for number, (task, pattern) in enumerate(SOME):
        for place, name in enumerate(names):
            marks = () if place == number % len(names) else pytest.mark.slow
            yield pytest.param(task, pattern, name, marks=marks)


CASES = [*everywhere(), *controls()]

IN_BFLOAT16 = [
    (task, pattern, name)
    for task, pattern, names in (
        ("language-modeling", "CS", ("softmax", "linear-elu", "lla", "performer", "s4d", "local")),
        ("masked-lm", "NS", ("softmax", "nystromformer", "prob-sparse", "lara")),
    )
    for name in names
] + [
    pytest.param(
        "summarization",
        "CC",
        info.id,
        marks=() if info.id in ("softmax", "none", "lla", "abc") else pytest.mark.slow,
    )
    for info in cab.attentions()
    if info.grade(Pattern.CAUSAL_CROSS)
]


@pytest.mark.parametrize(("task", "pattern", "name"), CASES)
def test_an_honest_mechanism_passes(task, pattern, name):
    task = short_task(task, pattern)
    run_guarded(task, *model_of(task, name))


@pytest.mark.parametrize(("task", "pattern", "name"), IN_BFLOAT16)
def test_an_honest_mechanism_passes_in_bfloat16(task, pattern, name):
    task = short_task(task, pattern, precision="bfloat16")
    run_guarded(task, *model_of(task, name))


@pytest.mark.parametrize(
    ("task", "pattern", "name"),
    [
        ("language-modeling", "CS", "performer"),
        ("summarization", "CC", "softmax+act-calib"),
        ("masked-lm", "NS", "lara"),
        ("tts", "CC", "lla"),
        ("super-resolution-sr3", "NS", "softmax"),
    ],
)
def test_training_is_the_same_to_the_bit_without_the_guard(task, pattern, name):
    task = short_task(task, pattern, steps=4)
    ends = []
    for guarded in (True, False):
        model, candidates = model_of(task, name)
        trained, scores = run_guarded(task, model, candidates, guarded)
        ends.append((trained.losses, trained.validation, scores, model.state_dict()))
    assert ends[0][:3] == ends[1][:3]
    for name, value in ends[0][3].items():
        assert torch.equal(value, ends[1][3][name]), name


class Drifts(load("softmax")):
    """What it evaluates with moves on at every training step, as a running mean does."""

    info = None

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("gain", torch.ones(()))

    def forward(self, q, k, v, context=None):
        if self.training:
            self.gain += 1
        return self.gain * super().forward(q, k, v, context)

    def reference(self, q, k, v, context=None):
        return self.gain * super().reference(q, k, v, context)


@pytest.mark.parametrize(
    ("mechanism", "options"), [(Drifts, {}), (load("performer"), {"redraw": 1})]
)
@pytest.mark.parametrize(("task", "pattern"), EVERY[:2])
def test_what_training_moves_on_is_no_other_answer(task, pattern, mechanism, options):
    task = short_task(task, pattern)
    run_guarded(task, *model_of(task, mechanism, **options))


def test_the_guard_leaves_modes_counts_buffers_and_random_states_alone():
    class Counts(load("softmax")):
        info = None

        def __init__(self, spec):
            super().__init__(spec)
            self.calls, self.seen = 0, []
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, q, k, v, context=None):
            self.calls += 1
            self.seen.append(self.calls)
            if self.training:
                self.mean += 1
            return super().forward(q, k, v, context)

    task = short_task("language-modeling", "CS")
    model, candidates = model_of(task, Counts)
    model.train()
    model.readout.eval()
    before = torch.get_rng_state()
    guard_built(task, model, candidates, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in candidates)
    assert not model.readout.training
    assert [(m.calls, m.seen, m.mean.item()) for m in candidates] == [(0, [], 0.0)] * 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in candidates)
    assert all(p.grad is None for p in model.parameters())


def test_calls_are_drawn_from_the_evaluation_that_is_scored():
    task = short_task("language-modeling", "CS")
    model, candidates = model_of(task, "softmax")
    outputs = []
    handle = candidates[0].register_forward_hook(lambda m, args, out: outputs.append(out.clone()))
    model.eval()
    with torch.no_grad(), watching(candidates) as calls:
        task.evaluate(model, "test", 0)
    handle.remove()
    own = [call for call in calls if call.module is candidates[0]]
    assert len(calls) == len(candidates)
    assert len(own) == 1
    assert all(any(torch.equal(call.out, out) for out in outputs) for call in own)
    guard_trained(task, model, candidates, calls, parameter_count(candidates))


def test_large_calls_are_drawn_more_often():
    module = load("none")(cab.AttentionSpec(Pattern.CAUSAL_SELF, 1, 2))
    kept = []
    for seed in range(200):
        with watched([module], 1, random.Random(seed)) as calls:
            for length in (1, 9):
                x = torch.zeros(1, 1, length, 2)
                module(x, x, x)
        kept.append(calls[0].q.shape[-2])
    assert 0.82 < kept.count(9) / len(kept) < 0.98


CAUSAL = [
    pytest.param(entry, pattern, id=f"{entry.id}-{pattern.abbreviation}")
    for entry in TASKS.entries().values()
    for pattern in entry.info.patterns
    if pattern.causal
]


@pytest.mark.parametrize(("entry", "pattern"), CAUSAL)
def test_every_causal_task_tells_its_sequence(entry, pattern):
    """Predictions up to a place do not move with what comes after it, and later ones do."""
    task = TASKS.load(entry)(pattern, cab.Scale.TINY)
    names = task.causal_inputs()
    if entry.id == "in-context-linear-regression":
        assert not names  # one query, which stands at the end
        return
    assert names
    slots = Slots(pattern, load("softmax"), load("softmax"), {}, 0)
    torch.manual_seed(0)
    model = task.build(slots).eval()
    batch = task.training_batch(torch.Generator().manual_seed(0))
    count, length = batch[names[0]].shape[:2]
    end = length // 2
    later = (torch.arange(length) >= end).expand(count, -1)
    changed = {**batch, **{name: swapped(batch[name], later, 1) for name in names}}
    with torch.no_grad():
        one, two = (task.causal_outputs(model, given).flatten(2) for given in (batch, changed))
        short = {**batch, **{name: batch[name][:, :end] for name in names}}
        cut = task.causal_outputs(model, short).flatten(2)
    assert one.shape[:2] in ((count, length), (count, length - 1))
    assert torch.equal(one[:, :end], two[:, :end])
    assert not torch.equal(one[:, end:], two[:, end:])
    assert cut.shape[1] >= end - task_group(task)
    torch.testing.assert_close(cut, one[:, : cut.shape[1]], atol=1e-4, rtol=1e-4)


def task_group(task):
    return getattr(getattr(task, "size", None), "group", 1)
