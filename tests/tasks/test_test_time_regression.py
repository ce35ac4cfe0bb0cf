"""Test-time regression: the generator's distribution, the wiring of pairs to slots, the sweep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attentions.linear_elu import LinearElu
from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Artifact, Attention, Batch, Pattern, Scale, Slots
from cab.errors import UsageError
from tasks.problems.piecewise_linear import SPREAD, Problem, draw_problem, draw_queries
from tasks.problems.piecewise_linear_predictors import MESA_RIDGE, ridge_stream
from tasks.problems.regression_task import scores_by_place, stream_charts
from tasks.test_time_regression.task import TestTimeRegression

PATTERNS = TestTimeRegression.info.patterns


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(batch: int = 64, segment: int = 32, dim: int = 8) -> Problem:
    return draw_problem(batch, 4 * segment, segment, dim, generator())


def model_of(task: TestTimeRegression, attention: type[Attention]) -> torch.nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention)).eval()


def points(artifact: Artifact) -> list[dict[str, float]]:
    """The data of a chart."""
    (rows,) = json.loads(artifact.content)["datasets"].values()
    return rows


def test_shapes_and_norms() -> None:
    drawn = problem(batch=3, segment=16, dim=5)
    assert drawn.x.shape == drawn.y.shape == (3, 64, 5)
    assert drawn.maps.shape == (3, 4, 5, 5)
    assert drawn.segment_length == 16
    torch.testing.assert_close(drawn.x.norm(dim=-1), torch.full((3, 64), 5**0.5))


def test_a_ragged_last_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        draw_problem(1, 100, 32, 4, generator())


def test_targets_are_the_segments_map_of_the_inputs() -> None:
    drawn = problem(batch=2, segment=4, dim=3)
    for b in range(2):
        for i in range(16):
            expected = drawn.maps[b, i // 4] @ drawn.x[b, i]
            torch.testing.assert_close(drawn.y[b, i], expected)


def test_moments() -> None:
    drawn = draw_problem(2000, 16, 4, 8, generator())
    assert abs(drawn.maps.mean().item()) < 0.003
    assert drawn.maps.var().item() * 8 == pytest.approx(1, abs=0.02)
    assert drawn.centres.var().item() == pytest.approx(1, abs=0.03)
    assert drawn.x.square().mean().item() == pytest.approx(1)
    assert drawn.y.square().mean().item() == pytest.approx(1, abs=0.02)


def test_segments_are_separated_in_key_space() -> None:
    x = problem(batch=200, dim=16).x.unflatten(1, (4, 32)) / 4
    within = (x[:, :, 0] * x[:, :, 1]).sum(-1).mean().item()
    between = (x[:, 0] * x[:, 1]).sum(-1).mean().item()
    assert within == pytest.approx(1 / (1 + SPREAD**2), abs=0.03)
    assert abs(between) < 0.03


def test_fresh_queries_follow_their_segment() -> None:
    drawn = problem(batch=3, segment=8, dim=4)
    inputs, targets, chosen = draw_queries(drawn, 40, generator(1))
    assert set(chosen.flatten().tolist()) == {0, 1, 2, 3}
    expected = torch.stack(
        [
            torch.stack([drawn.maps[b, chosen[b, i]] @ inputs[b, i] for i in range(40)])
            for b in range(3)
        ]
    )
    torch.testing.assert_close(targets, expected)
    distance = (inputs[:, :, None] - drawn.x[:, None]).norm(dim=-1).amin(-1)
    assert distance.min().item() > 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_batches_are_a_function_of_the_seed(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.TINY)
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    other = task.training_batch(generator(4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_seed_and_the_split_draw_the_evaluated_problems(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.TINY)
    model = model_of(task, SoftmaxAttention)
    score = task.evaluate(model, "test", 0)
    assert task.evaluate(model, "test", 0) == score
    assert task.evaluate(model, "test", 1) != score
    assert task.evaluate(model, "validation", 0) != score


def test_query_i_sees_exactly_the_pairs_before_it() -> None:
    task = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    case = task.draw(2, generator())
    predicted = model_of(task, SoftmaxAttention)(case.batch)
    x, y = case.problem.x[1], case.problem.y[1]
    assert predicted.shape[1] == len(x) - 1
    for i in range(1, len(x)):
        weights = torch.softmax(x[:i] @ x[i] / math.sqrt(task.setting.dim), dim=0)
        torch.testing.assert_close(predicted[1, i - 1], weights @ y[:i], atol=1e-5, rtol=1e-4)


def test_cross_queries_see_the_whole_source() -> None:
    task = TestTimeRegression(Pattern.CAUSAL_CROSS, Scale.TINY)
    batch = task.draw(2, generator()).batch
    predicted = model_of(task, SoftmaxAttention)(batch)
    scores = batch["queries"] @ batch["keys"].transpose(1, 2) / math.sqrt(task.setting.dim)
    torch.testing.assert_close(predicted, scores.softmax(-1) @ batch["values"])


def test_no_attention_repeats_the_last_target_or_predicts_zero() -> None:
    stream = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    case = stream.draw(2, generator())
    torch.testing.assert_close(model_of(stream, NoAttention)(case.batch), case.problem.y[:, :-1])
    cross = TestTimeRegression(Pattern.NONCAUSAL_CROSS, Scale.TINY)
    assert not model_of(cross, NoAttention)(cross.draw(2, generator()).batch).any()
    score = cross.evaluate(model_of(cross, NoAttention), "test", 0)
    assert score["mse"] == pytest.approx(cross.references(0)["zero"])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_attention_helps(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.SMALL)
    softmax, none = (
        task.evaluate(model_of(task, attention), "test", 0)["mse"]
        for attention in (SoftmaxAttention, NoAttention)
    )
    assert softmax < 0.8 * none


def test_artifacts_show_the_stream_and_the_sweep() -> None:
    task = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.SMALL)
    task.setting = replace(task.setting, problems=4)
    with torch.no_grad():
        artifacts = task.artifacts(model_of(task, SoftmaxAttention), 0)
    assert {artifact.name for artifact in artifacts} == {
        "errors-by-problem",
        "errors-by-position",
        "errors-in-a-segment",
        "errors-by-segment-and-dimension",
    }


def test_long_streams_are_drawn_as_means_over_windows() -> None:
    errors = {"error": torch.arange(1024.0).repeat(2, 1)}
    along, within = stream_charts(errors, 256)
    values = [point["y"] for point in points(along)]
    assert values == [2.0, *(4 * i + 1.5 for i in range(1, 256))], "the first position has none"
    assert [point["y"] for point in points(within)] == [512.0 + i for i in range(256)]


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention, LinearElu])
def test_the_backbone_has_no_parameters_of_its_own(attention: type[Attention]) -> None:
    task = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    model = model_of(task, attention)
    assert not list(model.parameters())
    assert not model.state_dict()
    assert task.parameter_budget is None


@pytest.mark.parametrize("pattern", [Pattern.CAUSAL_SELF, Pattern.NONCAUSAL_CROSS])
def test_the_sweep_has_a_score_and_its_references_for_every_cell(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.SMALL)
    task.setting = replace(task.setting, length=512, queries=64, problems=8)
    scores = task.evaluate(model_of(task, SoftmaxAttention), "test", 0)
    declared = {metric.name for metric in task.info.metrics}
    places = {"mse_first_segment", "mse_early", "mse_late"}
    assert set(scores) == declared - (places if pattern.cross else set())
    references = task.references(0)
    measured = {r.name for r in task.info.references if r.metric in scores}
    assert set(references) == measured
    for name, value in references.items():
        metric = next(r.metric for r in task.info.references if r.name == name)
        if name.startswith("oracle"):
            assert value < scores[metric]


def test_references_are_scored_on_the_evaluated_problems() -> None:
    """A model that predicts as a reference does has the reference's score."""
    task = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)

    class Mesa(torch.nn.Module):
        def forward(self, batch: Batch) -> Tensor:
            last = batch["queries"][:, -1:]
            x = torch.cat([batch["keys"], last], 1)
            y = torch.cat([batch["values"], torch.zeros_like(last)], 1)
            return ridge_stream(x, y, MESA_RIDGE)[:, 1:].float()

    scores, references = task.evaluate(Mesa(), "test", 0), task.references(0)
    names = {r.name: r.metric for r in task.info.references if r.name.startswith("mesa")}
    compared = {name: metric for name, metric in names.items() if metric in scores}
    assert len(compared) == 4 + 4
    for name, metric in compared.items():
        assert references[name] == pytest.approx(scores[metric], rel=1e-4)


def test_places_of_a_stream() -> None:
    errors = torch.arange(16.0).repeat(2, 1)
    scores = scores_by_place(errors, 4, stream=True)
    assert scores == {
        "mse": 8.0,
        "mse_first_segment": 2.0,
        "mse_early": (4 + 8 + 12) / 3,
        "mse_late": (7 + 11 + 15) / 3,
    }
    assert scores_by_place(errors, 4, stream=False) == {"mse": 7.5}


class Scaled(SoftmaxAttention):
    """Softmax attention of the queries times a learned number."""

    def __init__(self, spec) -> None:
        super().__init__(spec)
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, q, k, v, context=None):
        return super().forward(q * self.factor, k, v, context)


def test_a_mechanisms_own_parameter_is_trained() -> None:
    task = TestTimeRegression(Pattern.CAUSAL_CROSS, Scale.TINY)
    model = model_of(task, Scaled)
    batch = task.training_batch(generator())
    optimiser = torch.optim.AdamW(model.parameters(), lr=task.recipe.learning_rate)
    before = task.loss(model, batch)
    before.backward()
    assert all(p.grad is not None for p in model.parameters()), "one module per dimension"
    optimiser.step()
    assert task.loss(model, batch) < before


def test_lengths_are_those_of_the_batch() -> None:
    for pattern in PATTERNS:
        task = TestTimeRegression(pattern, Scale.SMALL)
        batch = task.draw(1, generator()).batch
        assert task.length() == (batch["queries"].shape[1], batch["keys"].shape[1])


def test_the_hash_tells_scales_apart_and_no_folder_is_read(tmp_path: Path) -> None:
    tiny, small = (TestTimeRegression(Pattern.CAUSAL_SELF, s) for s in (Scale.TINY, Scale.SMALL))
    assert tiny.data_hash != small.data_hash
    with pytest.raises(UsageError, match="generates"):
        TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    with pytest.raises(UsageError, match="noncausal-self"):
        TestTimeRegression(Pattern.NONCAUSAL_SELF, Scale.TINY)
