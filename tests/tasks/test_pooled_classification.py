"""What holds for every task that classifies pooled sequences."""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from torch import nn

from attentions.linear_elu import LinearElu
from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import evaluate, train
from tasks.backbones.pooled_encoder import Logits
from tasks.byte_classification.task import ByteClassification
from tasks.listops.task import ListOps
from tasks.pixel_classification.task import PixelClassification
from tasks.pooled_classification.task import PooledClassification

TASKS = [ListOps, PixelClassification, ByteClassification]
INPUTS = {"listops": "tokens", "pixel-classification": "pixels", "byte-classification": "tokens"}


@lru_cache
def make(task_class: type[PooledClassification], scale: Scale = Scale.TINY) -> PooledClassification:
    return task_class(Pattern.NONCAUSAL_SELF, scale)


@pytest.fixture(params=TASKS, ids=lambda c: c.info.id)
def task(request: pytest.FixtureRequest) -> PooledClassification:
    return make(request.param)


def build(
    task: PooledClassification, attention: type[Attention] = SoftmaxAttention, seed: int = 0
) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention, seed=seed))


def draw(task: PooledClassification, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def silent(**_: object) -> None:
    """Report nothing."""


def test_batches_follow_the_generator(task: PooledClassification) -> None:
    one, same, other = draw(task, 1), draw(task, 1), draw(task, 2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = INPUTS[task.info.id]
    assert one[name].shape[0] == task.recipe.batch_size
    assert one[name].shape != other[name].shape or not torch.equal(one[name], other[name])


def test_splits_are_fixed_and_differ(task: PooledClassification) -> None:
    name = INPUTS[task.info.id]
    test, again, validation = (task.examples(s, 0) for s in ("test", "test", "validation"))
    assert torch.equal(test[name], again[name])
    rows = {tuple(row.tolist()) for row in test[name]}
    shared = sum(tuple(row.tolist()) in rows for row in validation[name])
    # Two short expressions can be the same by chance.
    assert shared <= (0.1 * len(rows) if task.info.id == "listops" else 0)


def test_labels_are_classes(task: PooledClassification) -> None:
    labels = task.examples("test", 0)["labels"]
    assert set(labels.tolist()) == set(range(len(task.classes)))


def test_the_untrained_loss_is_that_of_chance(task: PooledClassification) -> None:
    loss = task.loss(build(task), draw(task, 0)).item()
    assert loss == pytest.approx(math.log(len(task.classes)), rel=0.3)


def test_the_backbone_is_the_same_for_every_candidate(task: PooledClassification) -> None:
    first = build(task, SoftmaxAttention).state_dict()
    for attention in (NoAttention, LinearElu):
        state = build(task, attention).state_dict()
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_metrics_and_references_are_declared(task: PooledClassification) -> None:
    declared = {metric.name for metric in task.info.metrics}
    scores = evaluate(task, build(task), "test", 0, task.recipe)
    assert set(scores) <= declared
    if task.info.id != "listops":
        assert set(scores) == declared
    references = task.references(0)
    assert set(references) == {r.name for r in task.info.references}
    assert all(0 <= value <= 1 for value in (*scores.values(), *references.values()))


class Knowing(nn.Module):
    """Stands for a model; its answers are set by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))


def test_accuracies_of_constructed_answers(
    task: PooledClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean pooling knows everything, the probe always names the first class."""

    def answer(model: nn.Module, batch: Batch) -> Logits:
        known = nn.functional.one_hot(batch["labels"], len(task.classes)).float()
        return Logits(known, -torch.arange(len(task.classes)).expand_as(known))

    monkeypatch.setattr(task, "classify", answer)
    scores = task.evaluate(Knowing(), "test", 0)
    first = (task.examples("test", 0)["labels"] == 0).double().mean().item()
    assert scores.pop("accuracy_ep") == pytest.approx(first)
    assert set(scores.values()) == {1.0}


def test_a_tiny_cell_learns(task: PooledClassification) -> None:
    model = build(task)
    trained = train(task, model, [], 0, silent)
    scores = evaluate(task, model, "test", 0, task.recipe)
    chance = max(1 / len(task.classes), task.references(0).get("majority-class", 0))
    assert trained.validation["accuracy"] > 1.2 * chance
    assert scores["accuracy"] > 1.2 * chance
    artifacts = task.artifacts(model.eval(), 0)
    assert len({a.name for a in artifacts}) == len(artifacts) == 2


def test_training_is_deterministic(task: PooledClassification) -> None:
    losses = []
    for _ in range(2):
        model = build(task)
        loss = task.loss(model, draw(task, 0))
        loss.backward()
        gradients = [p.grad.double().sum().item() for p in model.parameters()]
        losses.append((loss.item(), gradients))
    assert losses[0] == losses[1]


def test_scales_are_told_apart_and_no_folder_is_read(task: PooledClassification, tmp_path) -> None:
    other = make(type(task), Scale.SMALL)
    assert other.data_hash != task.data_hash or other.setting.dim != task.setting.dim
    with pytest.raises(UsageError, match="data folder"):
        type(task)(Pattern.NONCAUSAL_SELF, Scale.TINY, tmp_path)
    with pytest.raises(UsageError, match="causal-self"):
        type(task)(Pattern.CAUSAL_SELF, Scale.TINY)


@pytest.mark.parametrize("task_class", TASKS, ids=lambda c: c.info.id)
def test_scale_base_steps(task_class: type[PooledClassification]) -> None:
    task = make(task_class, Scale.BASE)
    with torch.device("meta"):
        model = task.build(Slots(task.pattern, SoftmaxAttention, SoftmaxAttention))
    assert all(p.is_meta for p in model.parameters())
    batch = {name: tensor[:2] for name, tensor in draw(task, 0).items()}
    assert batch[INPUTS[task.info.id]].shape[1] <= task.length()[0]
    small = task_class(Pattern.NONCAUSAL_SELF, Scale.BASE)
    loss = small.loss(build(small).train(), batch)
    loss.backward()
    assert math.isfinite(loss.item())
