"""Forecasting with Informer: published geometry, what the decoder sees, how long the keys are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from tasks.forecasting.informer import Distilling, Informer, SeriesEmbedding, distilled
from tasks.forecasting.informer_task import ForecastingInformer
from tasks.forecasting.series_task import forecast

PATTERNS = [Pattern.NONCAUSAL_CROSS, Pattern.NONCAUSAL_SELF]


@pytest.fixture(scope="module", params=PATTERNS)
def task(request: pytest.FixtureRequest) -> ForecastingInformer:
    return ForecastingInformer(request.param, Scale.TINY)


def build(task: ForecastingInformer, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))


def draw(task: ForecastingInformer, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


def by_hand(dim: int, hidden: int, encoder: int, decoder: int, variables: int) -> int:
    """Parameters of Informer (its code's modules, one by one) with six time features."""
    embedding = (3 * variables * dim + dim) + (6 * dim + dim)
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * hidden + hidden + hidden * dim + dim
    norm = 2 * dim
    distilling = 3 * dim * dim + dim + norm
    encoder_stack = encoder * (attention + feed_forward + 2 * norm) + (encoder - 1) * distilling
    decoder_stack = decoder * (2 * attention + feed_forward + 3 * norm)
    readout = variables * dim + variables
    return 2 * embedding + encoder_stack + norm + decoder_stack + norm + readout


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def informer(variables: int, encoder: int, decoder: int) -> Informer:
    """At the published width, feed-forward and heads, with the lengths of ETTh1."""
    return Informer(
        Slots(Pattern.NONCAUSAL_SELF, SoftmaxAttention, SoftmaxAttention),
        history=336,
        label=336,
        horizon=720,
        variables=variables,
        features=6,
        dim=512,
        heads=8,
        encoder_layers=encoder,
        decoder_layers=decoder,
        expansion=4,
        dropout=0.05,
    )


@pytest.mark.parametrize(
    ("variables", "encoder", "decoder", "expected"),
    [(7, 2, 1, 11_332_103), (321, 3, 2, 20_602_177), (12, 3, 2, 19_494_412)],
    ids=["ETT", "ECL", "Weather"],
)
def test_parameters_of_the_published_model(
    variables: int, encoder: int, decoder: int, expected: int
) -> None:
    model = informer(variables, encoder, decoder)
    assert count(model) == by_hand(512, 2048, encoder, decoder, variables) == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_paper_scale_is_the_published_model(pattern: Pattern) -> None:
    task = ForecastingInformer(pattern, Scale.PAPER)
    assert count(build(task, SoftmaxAttention)) == by_hand(512, 2048, 2, 1, 24)
    keys = (336 - 1) // 2 + 1
    expected = (336, 336) if pattern is Pattern.NONCAUSAL_SELF else (336 + 720, keys)
    assert task.length() == expected
    recipe = task.recipe
    assert (recipe.learning_rate, recipe.batch_size) == (1e-4, 32)
    # Rows are scarce in the embedded year: 70 % of 8,730 hours less a window, six times over.
    assert recipe.steps == 6 * ((6111 - 336 - 720 + 1) // 32)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_base_scale_takes_a_step(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ForecastingInformer(pattern, Scale.BASE)
    monkeypatch.setattr(ForecastingInformer, "recipe", replace(task.recipe, batch_size=4))
    model = build(task, SoftmaxAttention)
    assert count(model) == by_hand(256, 1024, 2, 1, 24)
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.eval().parameters(), lr=1e-4)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()


@pytest.mark.parametrize("length", [1, 2, 7, 96, 335, 336])
def test_distilling_halves_the_sequence(length: int) -> None:
    pooled = Distilling(4).eval()(torch.randn(2, length, 4))
    assert pooled.shape == (2, distilled(length), 4)
    assert distilled(length) == -(-length // 2)


def test_value_convolution_closes_the_circle() -> None:
    """The first step also sees the last, as published."""
    embed = SeriesEmbedding(1, 6, 8, length=10, dropout=0.0)
    values, times = torch.randn(1, 10, 1), torch.zeros(1, 10, 6)
    changed = values.clone()
    changed[:, -1] += 1
    moved = (embed(values, times) - embed(changed, times)).abs().amax(-1)[0] > 0
    assert moved.tolist() == [True] + [False] * 7 + [True, True]


def test_decoder_begins_with_the_label_and_zeros(task: ForecastingInformer) -> None:
    """Steps before the label do not reach the decoder but through the encoder."""
    model = build(task, SoftmaxAttention).eval()
    assert isinstance(model, Informer)
    seen = []
    model.decoder_input.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    batch = draw(task, 0)
    with torch.no_grad():
        out = forecast(model, batch)
    label = task.geometry.lengths.label
    values, times = seen[0]
    assert torch.equal(values[:, :label], batch["history"][:, -label:])
    assert not values[:, label:].any()
    assert torch.equal(times[:, label:], batch["horizon_times"])
    assert torch.equal(times[:, :label], batch["history_times"][:, -label:])
    assert out.shape == batch["target"].shape


def test_decoder_self_attention_is_causal_and_never_the_candidate(
    task: ForecastingInformer,
) -> None:
    model = build(task, NoAttention)
    assert isinstance(model, Informer)
    for layer in model.decoder:
        assert layer.attention.core.pattern is Pattern.CAUSAL_SELF
        assert isinstance(layer.attention.core, SoftmaxAttention)
        assert layer.cross_attention.core.pattern is Pattern.NONCAUSAL_CROSS


def test_slots_are_those_of_the_pattern(task: ForecastingInformer) -> None:
    slots = Slots(task.pattern, ExactSoftmaxAttention, SoftmaxAttention)
    model = task.build(slots)
    expected = 2 if task.pattern is Pattern.NONCAUSAL_SELF else 1
    assert len(slots.candidates) == expected
    assert {module.pattern for module in slots.candidates} == {task.pattern}
    sizes: list[tuple[int, int]] = []
    for module in slots.candidates:
        module.register_forward_hook(
            lambda _, inputs, __: sizes.append((inputs[0].shape[2], inputs[1].shape[2]))
        )
    with torch.no_grad():
        forecast(model.eval(), draw(task, 0))
    assert max(sizes) == task.length()


def test_batch_rows_are_independent_in_eval_mode(task: ForecastingInformer) -> None:
    """The batch norm between encoder layers uses its running statistics."""
    model = build(task, SoftmaxAttention).eval()
    batch = draw(task, 0)
    alone = {name: tensor[:1] for name, tensor in batch.items()}
    with torch.no_grad():
        torch.testing.assert_close(forecast(model, batch)[:1], forecast(model, alone))


def test_evaluation_reports_the_declared_metrics_and_repeats(task: ForecastingInformer) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        once, again = task.evaluate(model, "test", 0), task.evaluate(model, "test", 1)
    assert list(once) == [metric.name for metric in task.info.metrics]
    assert once == again
