"""A short quality cell, step by step, in the process where it is called."""

from dataclasses import replace

import torch

from cab import Pattern, Scale, Slots
from cab.attention_contract import infer_attention_info
from cab.registries import ATTENTIONS, TASKS
from runners.calibration import switch_off, switch_on
from runners.guard.guard import guard_built, guard_trained, watching
from runners.guard.parameters import parameter_count
from runners.training import evaluate, train


def load(name):
    return ATTENTIONS.load(ATTENTIONS.resolve(name))


def short_task(name, pattern, *, steps=2, precision="float32"):
    """A task at its smallest scale with a recipe of few steps."""
    cls = TASKS.load(TASKS.resolve(name))

    class Short(cls):
        @property
        def recipe(self):
            return replace(
                super().recipe, steps=steps, evaluations=1, precision=precision, warmup_steps=1
            )

    return Short(Pattern.parse(pattern), Scale.TINY)


def model_of(task, candidate, seed=0, **options):
    """The task's model with a candidate (id or class) and its options, and its slots."""
    if isinstance(candidate, str):
        candidate = load(candidate)
    elif "info" not in vars(candidate) or candidate.info is None:
        candidate.info = infer_attention_info(candidate)
    slots = Slots(task.pattern, candidate, load("softmax"), options, seed)
    torch.manual_seed(seed)
    return task.build(slots), slots.candidates


def run_guarded(task, model, candidates, guarded=True):
    """Train and test as a cell does it; training and scores."""
    switch_off(candidates)
    counted = parameter_count(candidates)
    if guarded:
        guard_built(task, model, candidates, 0)
    trained = train(task, model, candidates, 0, lambda **event: None)
    switch_on(task, model, candidates, 0)
    with watching(candidates) as calls:
        scores = evaluate(task, model, "test", 0, task.recipe)
    if guarded:
        guard_trained(task, model, candidates, calls, counted)
    return trained, scores
