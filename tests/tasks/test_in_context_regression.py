"""In-context regression: the stack over pairs and queries, no leaks, scores by segment length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.in_context_regression.task import SEGMENTS, InContextRegression
from tasks.problems.piecewise_linear_predictors import MESA_RIDGE, ridge_stream

PATTERNS = InContextRegression.info.patterns


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(
    task: InContextRegression, attention: type[Attention] = SoftmaxAttention
) -> tuple[torch.nn.Module, list[Attention]]:
    slots = Slots(task.pattern, attention, SoftmaxAttention)
    torch.manual_seed(0)
    return task.build(slots), slots.candidates


def changed(task: InContextRegression, name: str, position: int) -> Tensor:
    """Whether each prediction moves when an input of the batch does."""
    model, _ = model_of(task)
    batch = dict(task.draw(2, generator()).batch)
    before = model(batch)
    batch[name] = batch[name].clone()
    batch[name][:, position] += 1
    return (model(batch) - before).abs().amax((0, 2)) > 0


def test_a_pair_moves_the_queries_after_it_and_none_before() -> None:
    task = InContextRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    for name in ("keys", "values"):
        moved = changed(task, name, 40)
        # queries[:, i] comes right after the pair i.
        assert not moved[:40].any()
        assert moved[40:].all()
    moved = changed(task, "queries", 40)
    assert not moved[:40].any()
    assert moved[40]


def test_cross_queries_see_every_pair_and_no_other_query() -> None:
    task = InContextRegression(Pattern.NONCAUSAL_CROSS, Scale.TINY)
    assert changed(task, "values", 100).all()
    assert changed(task, "queries", 7).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_starts_near_an_average_of_the_targets_of_similar_inputs(pattern: Pattern) -> None:
    task = InContextRegression(pattern, Scale.SMALL)
    model, _ = model_of(task)
    with torch.no_grad():
        start = task.evaluate(model, "validation", 0)
    assert start["mse"] < 0.9 * task.references(0)["zero"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_seed_same_problems_and_scores(pattern: Pattern) -> None:
    task = InContextRegression(pattern, Scale.TINY)
    first, again, other = (task.training_batch(generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)
    model, _ = model_of(task)
    with torch.no_grad():
        scores = task.evaluate(model, "test", 0)
        assert task.evaluate(model, "test", 0) == scores
        assert task.evaluate(model, "test", 1) != scores
        assert task.evaluate(model, "validation", 0) != scores
    assert set(scores) == {metric.name for metric in task.info.metrics}


def test_training_mixes_the_segment_lengths() -> None:
    task = InContextRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    draws = generator()
    seen = set()
    for _ in range(30):
        keys = task.training_batch(draws)["keys"][0]
        # Inputs of one segment are alike (cosine about 0.8), others are not.
        likeness = (keys[1:] * keys[:-1]).sum(-1) / task.setting.dim
        breaks = [s for s in SEGMENTS[:-1] if likeness[s - 1 :: s].mean() < 0.5]
        seen.add(min(breaks, default=SEGMENTS[-1]))
    assert seen == set(SEGMENTS)


def test_the_headline_is_the_mean_over_segment_lengths_and_references_see_the_same_problems() -> (
    None
):
    task = InContextRegression(Pattern.CAUSAL_SELF, Scale.TINY)

    class Mesa(torch.nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            last = batch["queries"][:, -1:]
            x = torch.cat([batch["keys"], last], 1)
            y = torch.cat([batch["values"], torch.zeros_like(last)], 1)
            return ridge_stream(x, y, MESA_RIDGE)[:, 1:].float()

    scores, references = task.evaluate(Mesa(), "test", 0), task.references(0)
    parts = [scores[f"mse_s{segment}"] for segment in SEGMENTS]
    assert scores["mse"] == pytest.approx(sum(parts) / len(parts))
    assert references["mesa"] == pytest.approx(scores["mse"], rel=1e-4)
    for segment in SEGMENTS:
        assert references[f"mesa-s{segment}"] == pytest.approx(scores[f"mse_s{segment}"], rel=1e-3)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_references_are_those_declared_and_the_oracle_is_below(pattern: Pattern) -> None:
    task = InContextRegression(pattern, Scale.SMALL)
    values = task.references(0)
    assert set(values) == {reference.name for reference in task.info.references}
    for ending in ("", *(f"-s{segment}" for segment in SEGMENTS)):
        assert values[f"oracle-least-squares{ending}"] < values[f"mesa{ending}"] + 1e-6
        assert values[f"mesa{ending}"] < values[f"zero{ending}"]
    # Of 128 pairs in one segment both see the same map.
    assert values["mesa-s128"] == pytest.approx(values["oracle-least-squares-s128"], abs=1e-3)
    assert values["zero"] == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_helps_and_no_attention_predicts_zero_at_best(pattern: Pattern) -> None:
    task = InContextRegression(pattern, Scale.TINY)
    scores = {}
    for attention in (SoftmaxAttention, NoAttention):
        model, candidates = model_of(task, attention)
        train(task, model, candidates, 0, lambda **_: None)
        with torch.no_grad():
            scores[attention] = task.evaluate(model.eval(), "test", 0)["mse"]
            artifacts = {artifact.name for artifact in task.artifacts(model, 0)}
    assert scores[SoftmaxAttention] < 0.75 * scores[NoAttention]
    assert scores[NoAttention] == pytest.approx(task.references(0)["zero"], rel=0.05)
    expected = {"errors-by-problem", "errors-by-segment-length"}
    if not pattern.cross:
        expected |= {"errors-by-position", "errors-in-a-segment"}
    assert artifacts == expected


def test_the_large_scale_steps() -> None:
    task = InContextRegression(Pattern.NONCAUSAL_CROSS, Scale.BASE)
    model, _ = model_of(task)
    batch = {name: tensor[:1] for name, tensor in task.draw(1, generator()).batch.items()}
    loss = task.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.parameters())


def test_lengths_are_those_of_the_slots() -> None:
    for pattern in PATTERNS:
        task = InContextRegression(pattern, Scale.TINY)
        seen = []

        class Spy(SoftmaxAttention):
            def forward(self, q, k, v, context=None, seen=seen):  # type: ignore[no-untyped-def]
                seen.append((q.shape[-2], k.shape[-2]))
                return super().forward(q, k, v, context)

        model, _ = model_of(task, Spy)
        model(task.draw(1, generator()).batch)
        assert seen == [task.length()] * 2


def test_hashes_and_folders(tmp_path: Path) -> None:
    tiny, base = (InContextRegression(Pattern.CAUSAL_SELF, s) for s in (Scale.TINY, Scale.BASE))
    assert tiny.data_hash != base.data_hash
    with pytest.raises(UsageError, match="generates"):
        InContextRegression(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    with pytest.raises(UsageError, match="causal-cross"):
        InContextRegression(Pattern.CAUSAL_CROSS, Scale.TINY)
