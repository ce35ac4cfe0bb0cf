"""Pooled tasks whose encoder is trained through efficient probing instead of the mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from runners.training import evaluate, train
from tasks.backbones.pooled_encoder import PooledEncoder
from tasks.backbones.readout import EfficientProbing, MeanPooling
from tasks.byte_classification.probed_task import ProbedByteClassification
from tasks.byte_classification.task import ByteClassification
from tasks.listops.probed_task import ProbedListOps
from tasks.listops.task import ListOps
from tasks.pixel_classification.probed_task import ProbedPixelClassification
from tasks.pixel_classification.task import PixelClassification
from tasks.pooled_classification.task import PooledClassification

PAIRS = [
    (ProbedByteClassification, ByteClassification),
    (ProbedListOps, ListOps),
    (ProbedPixelClassification, PixelClassification),
]


@pytest.fixture(params=PAIRS, ids=lambda pair: pair[0].info.id)
def tasks(request: pytest.FixtureRequest) -> tuple[PooledClassification, PooledClassification]:
    probed, plain = (cls(Pattern.NONCAUSAL_SELF, Scale.TINY) for cls in request.param)
    return probed, plain


def build(task: PooledClassification) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, SoftmaxAttention, SoftmaxAttention))


def encoder_of(model: nn.Module) -> PooledEncoder:
    (found,) = (module for module in model.modules() if isinstance(module, PooledEncoder))
    return found


def test_it_differs_from_the_task_with_the_mean_in_the_readout_alone(tasks) -> None:
    probed, plain = tasks
    own, other = build(probed), build(plain)
    readouts = encoder_of(own), encoder_of(other)
    assert isinstance(readouts[0].mean, EfficientProbing)
    assert isinstance(readouts[0].probe, MeanPooling)
    theirs = {
        name.replace(".mean.", ".x.").replace(".probe.", ".mean.").replace(".x.", ".probe."): value
        for name, value in other.state_dict().items()
    }
    assert own.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in own.state_dict().items())
    assert probed.recipe == plain.recipe
    assert probed.data_hash == plain.data_hash
    assert probed.length() == plain.length()
    batches = [task.training_batch(torch.Generator().manual_seed(1)) for task in tasks]
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])


def test_the_encoder_learns_through_the_probe_alone(tasks) -> None:
    probed, plain = tasks
    model, other = build(probed), build(plain)
    batch = probed.training_batch(torch.Generator().manual_seed(0))
    main, beside = probed.classify(model, batch)
    swapped = plain.classify(other, batch)
    torch.testing.assert_close(main, swapped.probe)
    torch.testing.assert_close(beside, swapped.mean)
    first = encoder_of(model).layers[0]
    F.cross_entropy(beside, batch["labels"]).backward()
    assert all(p.grad is None for p in first.parameters())
    F.cross_entropy(probed.classify(model, batch).mean, batch["labels"]).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in first.parameters())


@pytest.mark.slow
def test_a_tiny_cell_learns_and_says_what_it_declares(tasks) -> None:
    probed, _ = tasks
    model = build(probed)
    trained = train(probed, model, [], 0, lambda **_: None)
    scores = evaluate(probed, model, "test", 0, probed.recipe)
    assert set(scores) == {metric.name for metric in probed.info.metrics}
    chance = max(1 / len(probed.classes), probed.references(0).get("majority-class", 0))
    assert trained.validation["accuracy"] > 1.2 * chance
    assert scores["accuracy"] > 1.2 * chance
    assert set(probed.references(0)) == {r.name for r in probed.info.references}
    with torch.no_grad():
        artifacts = probed.artifacts(model.eval(), 0)
    assert not any("mean pooling" in artifact.caption for artifact in artifacts)
    assert any("efficient probe" in artifact.caption for artifact in artifacts)
