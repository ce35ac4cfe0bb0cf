"""Training-free modifications in the quality runner."""

from types import SimpleNamespace

import pytest
import torch

from cab import Attention, AttentionSpec, Metric, Pattern, Recipe
from runners.calibration import switch_off, switch_on


class Switched(Attention):
    """Two heads; the test's task scores each that is on."""

    def __init__(self, calibrates):
        super().__init__(AttentionSpec(Pattern.CAUSAL_SELF, 2, 4))
        self.calibrates = calibrates
        self.register_buffer("on", torch.ones(2, dtype=torch.bool))

    def switches(self):
        return self.on


def task_of(worth, higher=True):
    """A task whose validation score is the sum of what the heads that are on are worth."""

    def evaluate(model, split, seed):
        assert split == "validation"
        total = sum(float(w[m.on].sum()) for m, w in zip(model, worth, strict=True))
        return {"score": total if higher else -total}

    return SimpleNamespace(
        evaluate=evaluate,
        evaluation_seed=lambda seed: seed,
        recipe=Recipe(steps=1, batch_size=1, learning_rate=1.0),
        info=SimpleNamespace(metrics=(Metric("score", "", higher, ""),)),
    )


@pytest.mark.parametrize("higher", [True, False])
def test_heads_that_help_on_their_own_are_turned_on(higher):
    model = torch.nn.ModuleList([Switched(True), Switched(True)])
    worth = [torch.tensor([1.0, -1.0]), torch.tensor([0.0, 2.0])]
    switch_off(model)
    assert not any(m.on.any() for m in model)
    scores = switch_on(task_of(worth, higher), model, list(model), seed=0)
    assert [m.on.tolist() for m in model] == [[True, False], [False, True]]
    assert scores == {"score": 3.0 if higher else -3.0}


def test_without_calibration_all_heads_are_turned_on():
    model = torch.nn.ModuleList([Switched(False)])
    switch_off(model)
    switch_on(task_of([torch.tensor([-1.0, -1.0])]), model, list(model), seed=0)
    assert model[0].on.all()


def test_other_mechanisms_have_nothing_to_turn_on():
    module = Attention(AttentionSpec(Pattern.CAUSAL_SELF, 2, 4))
    switch_off([module])
    assert switch_on(task_of([]), torch.nn.ModuleList(), [module], seed=0) is None
