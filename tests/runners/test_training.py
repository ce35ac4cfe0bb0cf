"""The training loop: what is shared between candidates, and how the checkpoint is chosen."""

import math

import pytest
import torch
from torch import nn

from cab import Pattern, Recipe, Scale, Slots
from cab.registries import ATTENTIONS, TASKS
from runners.outcome import DivergedError
from runners.training import learning_rate, make_optimiser, train


def load(name):
    return ATTENTIONS.load(ATTENTIONS.resolve(name))


def slots_for(name, seed=0, pattern=Pattern.CAUSAL_CROSS):
    return Slots(pattern, load(name), load("softmax"), {}, seed)


TASK_PATTERNS = [
    pytest.param(entry, pattern, id=f"{entry.id}-{pattern.abbreviation}")
    for entry in TASKS.entries().values()
    for pattern in entry.info.patterns
]


@pytest.mark.parametrize(("entry", "pattern"), TASK_PATTERNS)
def test_shared_weights_do_not_depend_on_the_candidate(entry, pattern):
    task = TASKS.load(entry)(pattern, Scale.TINY)
    states = []
    for name in ("softmax", "lla", "none"):
        slots = Slots(pattern, load(name), load("softmax"), {}, seed=3)
        torch.manual_seed(3)
        model = task.build(slots)
        assert slots.candidates, "the task must put the candidate somewhere"
        own = {id(p) for module in slots.candidates for p in module.parameters()}
        states.append({n: p for n, p in model.named_parameters() if id(p) not in own})
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        for name, parameter in states[0].items():
            assert torch.equal(parameter, other[name]), name


@pytest.mark.parametrize(("entry", "pattern"), TASK_PATTERNS)
def test_training_is_reproducible_to_the_bit(entry, pattern, monkeypatch):
    task = TASKS.load(entry)(pattern, Scale.TINY)
    short = Recipe(steps=3, batch_size=task.recipe.batch_size, learning_rate=1e-3, evaluations=1)
    monkeypatch.setattr(type(task), "recipe", short)
    outcomes = []
    for seed in (0, 0, 1):
        slots = Slots(pattern, load("linear-elu"), load("softmax"), {}, seed)
        torch.manual_seed(seed)
        model = task.build(slots)
        trained = train(task, model, slots.candidates, seed, lambda **event: None)
        outcomes.append((trained.validation, trained.losses))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] != outcomes[2]


@pytest.mark.parametrize(("entry", "pattern"), TASK_PATTERNS)
def test_every_task_shows_what_a_model_makes(entry, pattern):
    task = TASKS.load(entry)(pattern, Scale.TINY)
    with torch.no_grad():
        model = task.build(Slots(pattern, load("softmax"), load("softmax"), {}, 0)).eval()
        made, again = task.artifacts(model, 0), task.artifacts(model, 0)
    assert made
    assert made == again
    assert len({artifact.name for artifact in made}) == len(made)


def test_learning_rate_warms_up_and_decays():
    recipe = Recipe(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(recipe, step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) > 0.95
    assert rates[-1] == pytest.approx(recipe.final_lr_fraction)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)


def test_special_parameter_groups_are_not_decayed():
    slots = slots_for("lla")
    core = slots.layer(0, of=1, max_length=64)(Pattern.CAUSAL_CROSS, heads=2, head_dim=4)
    model = nn.ModuleDict({"core": core, "rest": nn.Linear(2, 2)})
    recipe = Recipe(steps=1, batch_size=1, learning_rate=0.1, weight_decay=0.3)
    optimiser = make_optimiser(model, slots.candidates, recipe)
    decays = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert decays[id(core.penalty.raw)] == 0.0
    assert decays[id(model["rest"].weight)] == 0.3
    assert len(decays) == sum(1 for _ in model.parameters())


def test_a_group_caps_the_learning_rate(monkeypatch):
    class Capped(nn.Linear):
        def parameter_groups(self):
            return [{"params": [self.weight], "max_lr": 1e-3}]

        def auxiliary_loss(self):
            return None

    task, model, seen = Falling(), Capped(1, 1), []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW,
        "step",
        lambda self: (
            seen.append({len(g["params"][0].shape): g["lr"] for g in self.param_groups})
            or step(self)
        ),
    )
    train(task, model, [model], 0, lambda **event: None)
    assert max(rates[2] for rates in seen) == 1e-3
    assert max(rates[1] for rates in seen) > 5e-3


class Falling:
    """A task whose validation score is best after its second evaluation."""

    def __init__(self):
        from cab.info import Metric

        self.info = type("Info", (), {"metrics": (Metric("loss", "1", False, ""),)})
        self.recipe = Recipe(steps=9, batch_size=1, learning_rate=0.1, evaluations=3)
        self.scores = iter([3.0, 1.0, 2.0])
        self.states = []

    def evaluation_seed(self, seed):
        return seed

    def training_batch(self, generator):
        return {"x": torch.rand(1, generator=generator)}

    def loss(self, model, batch):
        return model(batch["x"]).square().sum()

    def evaluate(self, model, split, seed):
        self.states.append(model.weight.detach().clone())
        return {"loss": next(self.scores)}


def test_the_best_validation_checkpoint_is_kept():
    task, model = Falling(), nn.Linear(1, 1)
    trained = train(task, model, [], 0, lambda **event: None)
    assert trained.steps == 6
    assert trained.validation == {"loss": 1.0}
    assert torch.equal(model.weight, task.states[1])
    assert not torch.equal(model.weight, task.states[2])


def test_schedules():
    def rates(schedule):
        recipe = Recipe(
            steps=100, batch_size=1, learning_rate=1.0, warmup_steps=10, schedule=schedule
        )
        return [learning_rate(recipe, step) for step in range(1, 101)]

    assert rates("constant")[9:] == [1.0] * 91
    assert rates("linear")[99] == pytest.approx(0.05)
    assert rates("linear")[49] == pytest.approx(0.525)
    assert rates("inverse-sqrt")[39] == pytest.approx(0.5)
    for schedule in ("cosine", "linear", "inverse-sqrt", "constant"):
        assert rates(schedule)[0] <= 0.1


class Regression:
    """Least squares on fresh numbers, whose batches can be told apart."""

    def __init__(self, **recipe):
        from cab.info import Metric

        self.info = type("Info", (), {"metrics": (Metric("loss", "1", False, ""),)})
        base = {"steps": 4, "batch_size": 6, "learning_rate": 0.1, "evaluations": 1}
        self.recipe = Recipe(**{**base, **recipe})
        self.dtypes = set()
        self.evaluated = []

    def evaluation_seed(self, seed):
        return seed

    def training_batch(self, generator):
        return {"x": torch.rand(self.recipe.batch_size, 3, generator=generator)}

    def loss(self, model, batch):
        out = model(batch["x"])
        self.dtypes.add(out.dtype)
        return (out.float() - 1).square().mean()

    def evaluate(self, model, split, seed):
        self.evaluated.append(model.weight.clone())
        return {"loss": 0.0}


def trained_weight(task):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    train(task, model, [], 0, lambda **event: None)
    return model.weight


def test_accumulated_batches_make_the_step_of_one_large_batch():
    whole = trained_weight(Regression())
    parts = trained_weight(Regression(batch_size=2, accumulate=3))
    assert torch.allclose(whole, parts, atol=1e-6)
    assert not torch.allclose(whole, trained_weight(Regression(batch_size=2)), atol=1e-4)


def test_bfloat16_is_for_the_forward_pass_alone():
    task = Regression(precision="bfloat16")
    weight = trained_weight(task)
    assert task.dtypes == {torch.bfloat16}
    assert weight.dtype == torch.float32


def test_averaged_weights_are_what_is_evaluated_and_kept():
    task = Regression(averaging=0.9)
    kept = trained_weight(task)
    assert torch.equal(kept, task.evaluated[-1])
    plain = trained_weight(Regression())
    assert not torch.allclose(kept, plain, atol=1e-4)
    torch.manual_seed(0)
    start = nn.Linear(3, 1).weight
    assert (kept - plain).norm() < (start - plain).norm()


class Bribed(nn.Linear):
    """Asks for something beside the task's loss."""

    def __init__(self, asked):
        super().__init__(3, 1)
        self.asked = asked

    def parameter_groups(self):
        return []

    def auxiliary_loss(self):
        return self.asked(self)


def losses_with(asked):
    torch.manual_seed(0)
    model = Bribed(asked)
    task = Regression(steps=8)
    trained = train(task, model, [model], 0, lambda **event: None)
    return trained.losses, model.weight.detach()


def test_an_auxiliary_loss_is_not_among_the_losses_that_are_reported():
    plain, _ = losses_with(lambda model: None)
    assert losses_with(lambda model: torch.tensor(-1e6))[0] == plain
    losses, weight = losses_with(lambda model: 100 * model.weight.square().sum())
    # It counts for the gradient, and the task's loss says what that does to it.
    assert losses[0] == plain[0]
    assert losses != plain
    assert weight.norm() < losses_with(lambda model: None)[1].norm()


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_an_auxiliary_loss_that_is_not_finite_ends_the_cell(value):
    with pytest.raises(DivergedError, match="auxiliary loss is"):
        losses_with(lambda model: torch.tensor(value))
