"""Test-time regression: the generator's distribution, the oracle, the wiring of pairs to slots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attentions.linear_elu import LinearElu
from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from cab.errors import UsageError
from tasks.test_time_regression.problem import (
    SPREAD,
    Problem,
    draw_problem,
    draw_queries,
    oracle_queries,
    oracle_stream,
)
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


def test_the_oracle_is_exact_once_a_segment_has_shown_d_pairs() -> None:
    drawn = problem(dim=8)
    error = (oracle_stream(drawn) - drawn.y).square().mean((0, 2)).unflatten(0, (4, 32)).mean(0)
    assert error[0].item() == pytest.approx(1, abs=0.1), "nothing known: it predicts zero"
    assert (error[1:9] <= error[:8]).all()
    assert error[4].item() > 0.01
    assert error[8:].max().item() < 1e-4


def test_the_oracle_is_minimum_norm_least_squares_on_the_segments_past() -> None:
    drawn = problem(batch=2, segment=8, dim=4)
    predicted = oracle_stream(drawn)
    for position in (1, 3, 6, 9, 30):
        start = position - position % 8
        x, y = drawn.x[0, start:position].double(), drawn.y[0, start:position].double()
        expected = drawn.x[0, position].double() @ torch.linalg.pinv(x) @ y
        torch.testing.assert_close(predicted[0, position].double(), expected, atol=1e-4, rtol=1e-4)


def test_the_oracle_knows_every_fresh_query() -> None:
    drawn = problem(dim=8)
    inputs, targets, chosen = draw_queries(drawn, 50, generator(1))
    assert (oracle_queries(drawn, inputs, chosen) - targets).square().mean().item() < 1e-5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_batches_are_a_function_of_the_seed(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.TINY)
    first, again = (task.training_batch(generator(3)) for _ in range(2))
    other = task.training_batch(generator(4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["keys"], other["keys"])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_seed_and_the_split_draw_the_evaluated_problems(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.TINY)
    model = model_of(task, SoftmaxAttention)
    score = task.evaluate(model, "test", 0)
    assert set(score) == {metric.name for metric in task.info.metrics}
    assert task.evaluate(model, "test", 0) == score
    assert task.evaluate(model, "test", 1) != score
    assert task.evaluate(model, "validation", 0) != score


def test_query_i_sees_exactly_the_pairs_before_it() -> None:
    task = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    batch = task.draw(2, generator())
    predicted = model_of(task, SoftmaxAttention)(batch)
    x, y = batch["queries"][1], batch["targets"][1]
    assert not batch["scored"][:, 0].any()
    assert batch["scored"][:, 1:].all()
    for i in range(1, len(x)):
        weights = torch.softmax(x[:i] @ x[i] / math.sqrt(task.setting.dim), dim=0)
        torch.testing.assert_close(predicted[1, i], weights @ y[:i], atol=1e-5, rtol=1e-4)


def test_cross_queries_see_the_whole_source() -> None:
    task = TestTimeRegression(Pattern.CAUSAL_CROSS, Scale.TINY)
    batch = task.draw(2, generator())
    predicted = model_of(task, SoftmaxAttention)(batch)
    scores = batch["queries"] @ batch["keys"].transpose(1, 2) / math.sqrt(task.setting.dim)
    torch.testing.assert_close(predicted, scores.softmax(-1) @ batch["values"])


def test_no_attention_repeats_the_last_target_or_predicts_zero() -> None:
    stream = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    batch = stream.draw(2, generator())
    predicted = model_of(stream, NoAttention)(batch)
    torch.testing.assert_close(predicted[:, 1:], batch["targets"][:, :-1])
    cross = TestTimeRegression(Pattern.NONCAUSAL_CROSS, Scale.TINY)
    assert not model_of(cross, NoAttention)(cross.draw(2, generator())).any()
    score = cross.evaluate(model_of(cross, NoAttention), "test", 0)
    assert score["mse"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_attention_helps(pattern: Pattern) -> None:
    task = TestTimeRegression(pattern, Scale.SMALL)
    softmax, none = (
        task.evaluate(model_of(task, attention), "test", 0)["mse"]
        for attention in (SoftmaxAttention, NoAttention)
    )
    assert softmax < 0.8 * none


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention, LinearElu])
def test_the_backbone_has_no_parameters_of_its_own(attention: type[Attention]) -> None:
    task = TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY)
    model = model_of(task, attention)
    assert not list(model.parameters())
    assert not model.state_dict()
    assert task.parameter_budget is None


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
    optimiser.step()
    assert task.loss(model, batch) < before


def test_lengths_are_those_of_the_batch() -> None:
    for pattern in PATTERNS:
        task = TestTimeRegression(pattern, Scale.SMALL)
        batch = task.draw(1, generator())
        assert task.length() == (batch["queries"].shape[1], batch["keys"].shape[1])


def test_the_hash_tells_scales_apart_and_no_folder_is_read(tmp_path: Path) -> None:
    tiny, small = (TestTimeRegression(Pattern.CAUSAL_SELF, s) for s in (Scale.TINY, Scale.SMALL))
    assert tiny.data_hash != small.data_hash
    with pytest.raises(UsageError, match="generates"):
        TestTimeRegression(Pattern.CAUSAL_SELF, Scale.TINY, tmp_path)
    with pytest.raises(UsageError, match="noncausal-self"):
        TestTimeRegression(Pattern.NONCAUSAL_SELF, Scale.TINY)
