"""In-context linear regression: the one-layer backbone, its closed forms, a tiny run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attentions.linear_elu import LinearElu
from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.in_context_regression.linear_model import LayerPerKind, OneLayer, predict
from tasks.in_context_regression.linear_predictors import (
    best_debiased_step,
    debiased_gradient_step,
    excess_risk,
)
from tasks.in_context_regression.linear_prompts import draw_prompts
from tasks.in_context_regression.linear_structure import (
    KQ_DIAGONAL,
    OV_IMBALANCE,
    OV_LAST_ENTRY,
    SIGN_AGREEMENT,
    circuits,
    describe_heads,
    structure,
)
from tasks.in_context_regression.linear_task import InContextLinearRegression

PATTERNS = InContextLinearRegression.info.patterns
DIM, LENGTH, NOISE = 5, 40, 0.1


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
    task: InContextLinearRegression, attention: type[Attention]
) -> tuple[LayerPerKind, list[Attention]]:
    slots = Slots(task.pattern, attention, SoftmaxAttention)
    torch.manual_seed(0)
    model = task.build(slots)
    assert isinstance(model, LayerPerKind)
    return model, slots.candidates


def two_heads(pattern: Pattern, omega: float, step: float) -> OneLayer:
    """mu (softmax(omega x·x_q) - softmax(-omega x·x_q)) y with 2 mu omega = step."""
    size = 8
    slots = Slots(pattern, SoftmaxAttention, SoftmaxAttention)
    layer = OneLayer(
        slots, pattern, dim=DIM, tasks=1, heads=2, head_dim=size, max_length=LENGTH + 1
    )
    with torch.no_grad():
        for weight in (layer.query.weight, layer.key.weight, layer.value.weight):
            weight.zero_()
        for head, sign in enumerate((1, -1)):
            rows = range(head * size, head * size + DIM)
            for i, row in enumerate(rows):
                layer.query.weight[row, i] = sign * omega * size**0.5
                layer.key.weight[row, i] = 1
            layer.value.weight[head * size, DIM] = 1
        layer.output.weight.zero_()
        layer.output.weight[0, 0] = step / (2 * omega)
        layer.output.weight[0, size] = -step / (2 * omega)
    return layer


def test_a_positive_and_a_negative_head_make_a_debiased_gradient_step() -> None:
    step = best_debiased_step(DIM, LENGTH, NOISE)
    prompts = draw_prompts(500, LENGTH, 4, generator(), dim=DIM, noise=NOISE)
    expected = debiased_gradient_step(prompts, step)
    batch = {"x": prompts.x, "y": prompts.y, "queries": prompts.queries}
    gaps = []
    for omega in (0.1, 0.01):
        predicted = two_heads(Pattern.NONCAUSAL_CROSS, omega, step)(batch)
        gaps.append((predicted - expected).abs().max().item())
    assert gaps[1] < 5e-3
    assert gaps[1] < 0.05 * gaps[0], "the difference is of second order in omega"
    risk = excess_risk(predicted, prompts)
    assert risk == pytest.approx(excess_risk(expected, prompts), rel=1e-2)


def test_in_a_stream_the_query_weighs_as_one_more_pair_without_target() -> None:
    step = best_debiased_step(DIM, LENGTH, NOISE)
    prompts = draw_prompts(500, LENGTH, 1, generator(), dim=DIM, noise=NOISE)
    layer = two_heads(Pattern.CAUSAL_SELF, 0.01, step)
    predicted = layer({"x": prompts.x, "y": prompts.y, "queries": prompts.queries})
    risk = excess_risk(debiased_gradient_step(prompts, step), prompts)
    assert excess_risk(predicted, prompts) == pytest.approx(risk, rel=0.1)


def test_the_table_of_heads_shows_omega_and_mu() -> None:
    step = best_debiased_step(DIM, LENGTH, NOISE)
    lines = describe_heads(two_heads(Pattern.NONCAUSAL_CROSS, 0.1, step), DIM).splitlines()
    rows = [[float(word) for word in line.split()] for line in lines[1:]]
    assert rows == [
        [0, pytest.approx(0.1, abs=1e-3), 0, pytest.approx(5 * step, abs=1e-3)],
        [1, pytest.approx(-0.1, abs=1e-3), 0, pytest.approx(-5 * step, abs=1e-3)],
    ]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_heads_of_a_debiased_step_have_all_of_its_structure(pattern: Pattern) -> None:
    found = structure(two_heads(pattern, 0.1, 1.0), DIM)
    assert found[KQ_DIAGONAL] == pytest.approx(1)
    assert found[OV_LAST_ENTRY] == pytest.approx(1)
    assert found[OV_IMBALANCE] == pytest.approx(0, abs=1e-6)
    assert found[SIGN_AGREEMENT] == pytest.approx(1)


def test_every_departure_from_the_structure_shows_in_its_own_number() -> None:
    layer = two_heads(Pattern.NONCAUSAL_CROSS, 0.1, 1.0)
    weights = layer.query.weight, layer.value.weight, layer.output.weight
    with torch.no_grad():
        weights[0][0, 0] *= (
            3  # of the first head's five diagonal entries, one is three times as large
        )
        weights[1][0, 0] = 2  # and it reads an input twice as much as the target
        weights[2][0, 8] *= -3  # the second head has the first one's sign, and three times its size
    found = structure(layer, DIM)
    # Mean of 3, 1, 1, 1, 1 is 7/5, and that of the other head 1: of squares 13 and 5.
    assert found[KQ_DIAGONAL] == pytest.approx((5 * (7 / 5) ** 2 + 5) / (13 + 5))
    assert found[OV_LAST_ENTRY] == pytest.approx((1 + 9) / (1 + 4 + 9))
    assert found[OV_IMBALANCE] == pytest.approx(1)
    assert found[SIGN_AGREEMENT] == pytest.approx((7 / 5 - 3) / (7 / 5 + 3))


def test_circuits_are_what_the_layer_computes_with() -> None:
    torch.manual_seed(3)
    slots = Slots(Pattern.NONCAUSAL_CROSS, SoftmaxAttention, SoftmaxAttention)
    layer = OneLayer(slots, slots.pattern, dim=3, tasks=2, heads=4, head_dim=6, max_length=9)
    kq, ov = circuits(layer, 3)
    prompts = draw_prompts(2, 7, 1, generator(), dim=3, noise=NOISE, tasks=2)
    pairs = torch.cat([prompts.x, prompts.y], -1)
    weights = torch.einsum("bqi,hij,bkj->bhqk", prompts.queries, kq, pairs).softmax(-1)
    expected = torch.einsum("bhqk,hoj,bkj->bqo", weights, ov, pairs)
    batch = {"x": prompts.x, "y": prompts.y, "queries": prompts.queries}
    torch.testing.assert_close(layer(batch), expected, rtol=1e-4, atol=1e-5)


def test_heads_that_do_nothing_have_no_structure() -> None:
    layer = two_heads(Pattern.NONCAUSAL_CROSS, 0.1, 1.0)
    with torch.no_grad():
        layer.output.weight.zero_()
    found = structure(layer, DIM)
    assert found[KQ_DIAGONAL] == pytest.approx(1)
    assert all(found[one] != found[one] for one in (OV_LAST_ENTRY, OV_IMBALANCE, SIGN_AGREEMENT))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_task_analyses_the_layer_of_the_headline(pattern: Pattern) -> None:
    task = InContextLinearRegression(pattern, Scale.TINY)
    model, _ = model_of(task, SoftmaxAttention)
    layer = model.layers["isotropic"]
    assert isinstance(layer, OneLayer)
    assert task.analyses(model) == structure(layer, task.setting.dim)


def test_a_stream_ends_with_one_query() -> None:
    layer = two_heads(Pattern.CAUSAL_SELF, 0.1, 1.0)
    prompts = draw_prompts(2, 4, 3, generator(), dim=DIM, noise=NOISE)
    with pytest.raises(ValueError, match="one query, not 3"):
        layer(vars(prompts))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_prediction_does_not_depend_on_the_answer_or_on_other_prompts(pattern: Pattern) -> None:
    task = InContextLinearRegression(pattern, Scale.TINY)
    model, _ = model_of(task, SoftmaxAttention)
    batch = dict(task.training_batch(generator()))
    prompt = {name: batch[f"multi_task.{name}"] for name in ("x", "y", "queries")}
    whole = model("multi_task", prompt)
    alone = model("multi_task", {name: tensor[3:4] for name, tensor in prompt.items()})
    torch.testing.assert_close(whole[3:4], alone)
    assert whole.shape == batch["multi_task.signal"].shape


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_seed_same_prompts_and_scores(pattern: Pattern) -> None:
    task = InContextLinearRegression(pattern, Scale.TINY)
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    other = task.training_batch(generator(4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)
    model, _ = model_of(task, SoftmaxAttention)
    with torch.no_grad():
        scores = task.evaluate(model, "test", 0)
        assert task.evaluate(model, "test", 0) == scores
        assert task.evaluate(model, "test", 1) != scores
        assert task.evaluate(model, "validation", 0) != scores
    assert set(scores) == {metric.name for metric in task.info.metrics}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_references_are_those_declared_in_the_expected_order(pattern: Pattern) -> None:
    task = InContextLinearRegression(pattern, Scale.SMALL)
    values = task.references(0)
    assert set(values) == {reference.name for reference in task.info.references}
    assert task.references(0) == values
    # One query a prompt leaves more chance in the mean than several.
    rough = 0.1 if pattern.cross else 0.2
    for ending in ("", "-2x", "-4x", "-noisy"):
        assert values[f"bayes{ending}"] < 0.5 * values[f"debiased-step{ending}"]
        for name in ("gradient-step", "debiased-step"):
            theory = values[f"{name}-theory{ending}"]
            assert values[f"{name}{ending}"] == pytest.approx(theory, rel=rough)
    assert values["zero"] == pytest.approx(1, rel=rough)
    assert values["bayes"] == pytest.approx(0.0146, rel=rough)
    assert values["bayes-anisotropic"] < 0.5 * values["gradient-step-anisotropic"]
    assert values["gradient-step-theory-anisotropic"] == pytest.approx(
        values["gradient-step-anisotropic"], rel=rough
    )
    assert values["bayes-multi-task"] == pytest.approx(0.0146, rel=rough)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_layer_per_kind_is_trained_and_attention_helps(pattern: Pattern) -> None:
    task = InContextLinearRegression(pattern, Scale.TINY)
    model, candidates = model_of(task, SoftmaxAttention)
    train(task, model, candidates, 0, lambda **_: None)
    model.eval()
    with torch.no_grad():
        scores = task.evaluate(model, "test", 0)
        assert scores["excess_risk"] < 0.85
        assert scores["excess_risk"] > task.references(0)["bayes"]
        names = {artifact.name for artifact in task.artifacts(model, 0)}
    assert names == {"risk-by-length", "heads"}


def test_no_attention_predicts_zero_or_a_map_of_the_query_alone() -> None:
    task = InContextLinearRegression(Pattern.NONCAUSAL_CROSS, Scale.TINY)
    model, _ = model_of(task, NoAttention)
    prompts = task.prompts("", "test", 0)
    assert not predict(model, "isotropic", prompts).any()
    stream = InContextLinearRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    model, _ = model_of(stream, NoAttention)
    prompts = stream.prompts("", "test", 0)
    before = predict(model, "isotropic", prompts)
    prompts.y.zero_()
    assert torch.equal(predict(model, "isotropic", prompts), before)


@pytest.mark.parametrize("attention", [SoftmaxAttention, LinearElu])
def test_the_large_scale_steps(attention: type[Attention]) -> None:
    task = InContextLinearRegression(Pattern.CAUSAL_SELF, Scale.BASE)
    model, _ = model_of(task, attention)
    batch = {name: tensor[:2] for name, tensor in task.training_batch(generator()).items()}
    loss = task.loss(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.parameters())


def test_lengths_hashes_and_folders(tmp_path: Path) -> None:
    scales = (Scale.TINY, Scale.SMALL)
    tiny, small = (InContextLinearRegression(Pattern.CAUSAL_SELF, scale) for scale in scales)
    assert tiny.length() == (161, 161)
    assert tiny.data_hash != small.data_hash
    cross = InContextLinearRegression(Pattern.NONCAUSAL_CROSS, Scale.SMALL)
    assert cross.length() == (8, 160)
    with pytest.raises(UsageError, match="generates"):
        InContextLinearRegression(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    with pytest.raises(UsageError, match="causal-cross"):
        InContextLinearRegression(Pattern.CAUSAL_CROSS, Scale.TINY)
