"""Algorithms on lists: the functions, the lists, normalised errors, predictors in closed form."""

from __future__ import annotations

import statistics
from functools import lru_cache

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import evaluate, train
from tasks.algorithmic.functions import (
    FUNCTIONS,
    draw_lists,
    linear_predictor,
    targets_of,
    with_one,
)
from tasks.algorithmic.task import Algorithmic, Condition


@lru_cache
def make(scale: Scale = Scale.TINY) -> Algorithmic:
    return Algorithmic(Pattern.NONCAUSAL_SELF, scale)


def build(task: Algorithmic, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def silent(**_: object) -> None:
    """Report nothing."""


def largest_run(numbers: list[float]) -> float:
    ends = range(1, len(numbers) + 1)
    return max(sum(numbers[i:j]) for j in ends for i in range(j))


def test_the_functions_are_those_of_every_prefix() -> None:
    lists = draw_lists(20, 9, 1.0, generator()).double()
    found = dict(zip(FUNCTIONS, targets_of(lists).unbind(-1), strict=True))
    for row, numbers in enumerate(lists.tolist()):
        for i in range(9):
            prefix = numbers[: i + 1]
            assert found["min"][row, i].item() == min(prefix)
            assert found["sum"][row, i].item() == pytest.approx(sum(prefix))
            assert found["median"][row, i].item() == pytest.approx(statistics.median(prefix))
            assert found["max_subarray"][row, i].item() == pytest.approx(largest_run(prefix))
            assert found["sort"][row, i].item() == sorted(numbers)[i]


def test_the_largest_run_has_a_number_in_it() -> None:
    targets = targets_of(torch.tensor([[-3.0, -1.0, -2.0], [2.0, -1.0, 3.0]]))
    assert targets[..., list(FUNCTIONS).index("max_subarray")].tolist() == [[-3, -1, -1], [2, 2, 4]]


def test_training_lists_are_uniform_in_a_random_range() -> None:
    lists = draw_lists(20_000, 8, 1.0, generator())
    assert lists.abs().max() <= 2
    # Ends U(-2, 2): the midpoint's variance is 4/6, that of the width 8/9 about a mean of 4/3.
    assert lists.mean().item() == pytest.approx(0, abs=0.02)
    within = (4 / 3) ** 2 + 8 / 9
    assert lists.var().item() == pytest.approx(4 / 6 + within / 12, rel=0.03)
    assert lists.var(1).mean().item() == pytest.approx(within / 12, rel=0.03)


@pytest.mark.parametrize("scale", [2.0, 4.0, 8.0])
def test_larger_scales_reject_ranges_of_training(scale: float) -> None:
    lists = draw_lists(20_000, 64, scale, generator())
    assert lists.abs().max() <= 2 * scale
    # A list of 64 numbers nearly fills its range; few ranges barely leave that of training.
    inside = (lists.abs().amax(1) <= 2).double().mean().item()
    assert inside < 0.03
    kept = 1 - scale**-2
    # E x^2 of the unrejected lists is that of training times scale^2; the rejected are training's.
    usual = 4 / 6 + ((4 / 3) ** 2 + 8 / 9) / 12
    expected = usual * (scale**2 - scale**-2) / kept
    assert lists.square().mean().item() == pytest.approx(expected, rel=0.03)


def test_batches_follow_the_generator_and_lengths_vary() -> None:
    task = make()
    one, same = (task.training_batch(generator(1)) for _ in range(2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    draws = generator(0)
    lengths = {task.training_batch(draws)["lists"].shape[1] for _ in range(60)}
    assert lengths == set(range(2, task.setting.length + 1))


def test_evaluated_lists_are_fixed_and_those_of_their_condition() -> None:
    task = make()
    for name, condition in task.conditions.items():
        test, again = (task.examples("test", condition, 0)["lists"] for _ in range(2))
        assert torch.equal(test, again)
        assert test.shape == (task.setting.lists["test"], condition.length), name
        validation = task.examples("validation", condition, 0)["lists"]
        assert not torch.equal(test[: len(validation)], validation)


class Answers(nn.Module):
    """A function of the list in place of a trained model."""

    def __init__(self, function) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.function = function

    def forward(self, lists: Tensor) -> Tensor:
        return self.function(lists)


def test_errors_of_exact_and_constant_answers() -> None:
    task = make()
    exact = task.evaluate(Answers(targets_of), "test", 0)
    assert set(exact) == {metric.name for metric in task.info.metrics}
    assert all(value < 1e-9 for value in exact.values())

    def off_by_one(lists: Tensor) -> Tensor:
        return targets_of(lists) + 1

    variances = task.statistics_draw(task.conditions["nmse"])[1].var(0)
    expected = (1 / variances).mean(0)
    scores = task.evaluate(Answers(off_by_one), "test", 0)
    for name, value in zip(FUNCTIONS, expected, strict=True):
        assert scores[f"nmse_{name}"] == pytest.approx(value.item(), rel=1e-4)
    assert scores["nmse"] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_references_against_theory() -> None:
    task = make(Scale.SMALL)
    known = task.references(0)
    assert set(known) == {reference.name for reference in task.info.references}
    assert known["best-constant"] == pytest.approx(1, abs=0.05)
    assert 0 < known["best-linear"] < 0.3
    assert known["best-linear-scale-8"] > known["best-linear"]


def test_a_linear_function_is_fitted_exactly() -> None:
    """The sum is linear: of the linear predictor's error it has no part."""
    task = make()
    condition = task.conditions["nmse"]
    lists, targets = task.statistics_draw(condition)
    fitted = linear_predictor(lists, targets.flatten(1))
    test = task.examples("test", condition, 0)
    predicted = (with_one(test["lists"].double()) @ fitted).view_as(test["targets"])
    error = (predicted - test["targets"]).square().mean((0, 1))
    names = list(FUNCTIONS)
    assert error[names.index("sum")] < 1e-9
    assert (error[[i for i, n in enumerate(names) if n != "sum"]] > 1e-3).all()


def test_the_loss_is_the_normalised_error() -> None:
    task = make()
    batch = task.training_batch(generator(3))
    length = batch["lists"].shape[1]
    variances = task.statistics_draw(Condition(length, 1.0))[1].var(0)
    model = build(task).eval()
    squared = (model(batch["lists"]) - batch["targets"]).double().square().mean(0)
    expected = (squared / variances).mean().item()
    assert task.loss(model, batch).item() == pytest.approx(expected, rel=1e-4)


def test_the_backbone_scales_with_its_input() -> None:
    """Without attention, and far from the biases, twice the numbers give twice the answers."""
    model = build(make(), NoAttention).eval()
    numbers = torch.randn(4, 8, generator=generator()) * 1e4
    once, twice = model(numbers), model(2 * numbers)
    torch.testing.assert_close(twice, 2 * once, rtol=0.02, atol=1.0)


def test_a_tiny_cell_learns() -> None:
    task = make()
    model = build(task)
    before = evaluate(task, model, "test", 0, task.recipe)["nmse"]
    trained = train(task, model, [], 0, silent)
    after = evaluate(task, model, "test", 0, task.recipe)
    assert trained.validation["nmse"] < 0.5
    assert after["nmse"] < min(0.5, before)
    assert {a.name for a in task.artifacts(model.eval(), 0)} == {"example", "errors-by-position"}


def test_scale_base_steps_and_no_folder_is_read(tmp_path) -> None:
    task = make(Scale.BASE)
    batch = {name: tensor[:2] for name, tensor in task.training_batch(generator()).items()}
    loss = task.loss(build(task), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert task.data_hash != make().data_hash
    with pytest.raises(UsageError, match="data folder"):
        Algorithmic(Pattern.NONCAUSAL_SELF, Scale.TINY, tmp_path)
