"""Test-time regression with trained projections: its start, no leaks, what training brings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from attentions.lla.attention import LocalLinearAttention
from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from runners.training import train
from tasks.problems.regression_task import RegressionTask
from tasks.test_time_regression.task import TestTimeRegression
from tasks.test_time_regression.trained_task import TestTimeRegressionTrained

PATTERNS = TestTimeRegressionTrained.info.patterns


def model_of(
    task: TestTimeRegressionTrained, attention: type[Attention] = SoftmaxAttention
) -> tuple[torch.nn.Module, list[Attention]]:
    slots = Slots(task.pattern, attention, SoftmaxAttention)
    torch.manual_seed(0)
    return task.build(slots), slots.candidates


def test_it_starts_as_the_average_of_bare_attentions_of_several_temperatures() -> None:
    task = TestTimeRegressionTrained(Pattern.NONCAUSAL_CROSS, Scale.TINY)
    model, _ = model_of(task)
    batch = task.draw(2, torch.Generator().manual_seed(0)).batch
    logits = batch["queries"] @ batch["keys"].transpose(1, 2) / task.setting.dim**0.5
    parts = [(logits * factor).softmax(-1) @ batch["values"] for factor in (0.5, 1.0)]
    torch.testing.assert_close(model(batch), (parts[0] + parts[1]) / 2, atol=1e-5, rtol=1e-4)


def test_a_target_has_no_influence_on_its_own_or_earlier_predictions() -> None:
    task = TestTimeRegressionTrained(Pattern.CAUSAL_SELF, Scale.TINY)
    model, _ = model_of(task)
    case = task.draw(2, torch.Generator().manual_seed(0))
    batch = dict(case.batch)
    before = model(batch)
    # values[:, 40] is the target of position 40, which predictions[:, 39] is of.
    batch["values"] = batch["values"].clone()
    batch["values"][:, 40] += 1
    batch["targets"] = torch.zeros_like(batch["targets"])
    changed = (model(batch) - before).abs().amax((0, 2))
    assert not changed[:40].any()
    assert changed[40:].all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_its_test_problems_are_those_of_the_bare_mechanism(pattern: Pattern) -> None:
    ours = next(TestTimeRegressionTrained(pattern, Scale.SMALL).cases("test", 3)).batch
    theirs = next(TestTimeRegression(pattern, Scale.SMALL).cases("test", 3)).batch
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_helps_and_no_attention_stays_behind(pattern: Pattern) -> None:
    task = TestTimeRegressionTrained(pattern, Scale.TINY)
    model, _ = model_of(task)
    with torch.no_grad():
        start = task.evaluate(model, "test", 0)["mse"]
    scores = {}
    for attention in (SoftmaxAttention, NoAttention):
        model, candidates = model_of(task, attention)
        train(task, model, candidates, 0, lambda **_: None)
        with torch.no_grad():
            scores[attention] = task.evaluate(model.eval(), "test", 0)["mse"]
    assert scores[SoftmaxAttention] < start
    assert scores[SoftmaxAttention] < 0.95 * scores[NoAttention]
    references = task.references(0)
    assert references["oracle-least-squares"] < scores[SoftmaxAttention] < references["zero"]


@pytest.mark.parametrize("cls", [TestTimeRegression, TestTimeRegressionTrained])
def test_the_large_scale_steps(cls: type[RegressionTask]) -> None:
    task = cls(Pattern.CAUSAL_SELF, Scale.BASE)
    # Its width and heads, on shorter streams.
    task.setting = replace(task.setting, length=1024, batch_size=1)
    model = task.build(Slots(task.pattern, LocalLinearAttention, SoftmaxAttention))
    loss = task.loss(model, task.training_batch(torch.Generator().manual_seed(0)))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.parameters())
