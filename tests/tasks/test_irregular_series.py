"""Irregular series: distribution of the thinning, closed-form predictors, wiring, a tiny cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.forecasting.data import Series
from tasks.irregular_series.model import LONGEST_PERIOD, time_code
from tasks.irregular_series.predictors import (
    covariances,
    kriging,
    last_observation,
    linear_interpolation,
)
from tasks.irregular_series.sampling import Sampling, sample
from tasks.irregular_series.task import IrregularSeries

PATTERNS = IrregularSeries.info.patterns
SAMPLING = Sampling(hours=10, ahead=3, counts=(5, 20), inside=6, after=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=PATTERNS)
def tiny(request: pytest.FixtureRequest) -> IrregularSeries:
    return IrregularSeries(request.param, Scale.TINY)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(hours: int = 40, variables: int = 4) -> Series:
    """Value 100 v + t of variable v at hour t, and the hour as its only calendar feature."""
    hour = torch.arange(hours, dtype=torch.float32)
    return Series(hour[:, None] + 100 * torch.arange(variables), hour[:, None])


def model_of(task: IrregularSeries, attention: type[Attention] = SoftmaxAttention) -> nn.Module:
    torch.manual_seed(0)
    return task.build(Slots(task.pattern, attention, SoftmaxAttention)).eval()


def observations(*triples: tuple[int, int, float], asked: tuple[tuple[int, int], ...]) -> Batch:
    """One window of (variable, hour, value) and questions (variable, hour), as by `sample`."""
    variables, hours, values = (torch.tensor([column]) for column in zip(*triples, strict=True))
    wanted = torch.tensor([asked])
    return {
        "values": values.float(),
        "variables": variables,
        "hours": hours,
        "observed": torch.ones_like(variables).bool(),
        "asked_variables": wanted[..., 0],
        "asked_hours": wanted[..., 1],
    }


def test_tokens_are_values_of_the_series() -> None:
    starts = torch.tensor([0, 7, 27])
    counts = torch.tensor([5, 12, 20])
    batch = sample(numbered(), starts, counts, SAMPLING, generator())
    seen = batch["observed"]
    assert torch.equal(seen.sum(1), counts)
    expected = 100 * batch["variables"] + batch["hours"] + starts[:, None]
    assert torch.equal(batch["values"][seen], expected[seen].float())
    assert not batch["values"][~seen].any()
    asked = 100 * batch["asked_variables"] + batch["asked_hours"] + starts[:, None]
    assert torch.equal(batch["target"], asked.float())
    assert torch.equal(
        batch["asked_calendar"][..., 0], (batch["asked_hours"] + starts[:, None]).float()
    )


def test_questions_are_unobserved_or_ahead_and_in_order() -> None:
    batch = sample(numbered(200), torch.arange(100), torch.full((100,), 20), SAMPLING, generator())
    known = batch["hours"] * 4 + batch["variables"]
    asked = batch["asked_hours"] * 4 + batch["asked_variables"]
    assert (known[:, 1:] > known[:, :-1]).all(), "no value twice, in order of time"
    assert (asked[:, 1:] > asked[:, :-1]).all()
    assert not (known[:, None] == asked[..., None]).any()
    assert (batch["hours"] < 10).all()
    assert (batch["asked_hours"][:, :6] < 10).all()
    assert (batch["asked_hours"][:, 6:] >= 10).all()


def test_hours_are_uniform_and_rates_differ_between_variables() -> None:
    sampling = Sampling(hours=20, ahead=3, counts=(16,), inside=4, after=2)
    batch = sample(
        numbered(23, 8), torch.zeros(4000).long(), torch.full((4000,), 16), sampling, generator()
    )
    share = batch["hours"].flatten().bincount() / batch["hours"].numel()
    torch.testing.assert_close(share, torch.full((20,), 1 / 20), atol=0.002, rtol=0)
    counts = nn.functional.one_hot(batch["variables"], 8).sum(1).float()
    assert counts.mean().item() == pytest.approx(2)
    # At equal rates: hypergeometric, 16 of 160 values, 20 of a kind.
    equal = 16 * (1 / 8) * (7 / 8) * (144 / 159)
    assert counts.var().item() > 1.8 * equal


def test_last_observation_and_line() -> None:
    asked = ((0, 3), (0, 4), (0, 6), (0, 9), (1, 2), (2, 5))
    batch = observations((0, 4, 1.0), (0, 8, 3.0), (1, 5, -2.0), asked=asked)
    last = torch.tensor([[1.0, 1.0, 1.0, 3.0, -2.0, 0.0]]).double()
    line = torch.tensor([[1.0, 1.0, 2.0, 3.0, -2.0, 0.0]]).double()
    torch.testing.assert_close(last_observation(batch), last)
    torch.testing.assert_close(linear_interpolation(batch), line)


def test_masked_observations_have_no_part_in_any_predictor() -> None:
    series = Series(torch.randn(300, 4, generator=generator(1)), torch.zeros(300, 1))
    batch = sample(series, torch.arange(4), torch.full((4,), 5), SAMPLING, generator())
    changed = {**batch, "values": torch.where(batch["observed"], batch["values"], 99.0)}
    covariance = covariances(series, 13)
    for predict in (last_observation, linear_interpolation, lambda b: kriging(b, covariance)):
        assert torch.equal(predict(batch), predict(changed))


def autoregression(hours: int) -> Series:
    """Two variables, the second a copy of the first, of covariance 0.9^lag."""
    noise = torch.randn(hours, generator=generator(2), dtype=torch.float64)
    values, last = [], 0.0
    for shock in noise.tolist():
        last = 0.9 * last + (1 - 0.81) ** 0.5 * shock
        values.append(last)
    z = torch.tensor(values).float()
    return Series(torch.stack([z, z], dim=1), torch.zeros(hours, 1))


def test_covariances_of_an_autoregression() -> None:
    found = covariances(autoregression(200_000), 5)
    expected = 0.9 ** torch.arange(6).double()
    for u in (0, 1):
        for v in (0, 1):
            torch.testing.assert_close(found[:, u, v], expected, atol=0.05, rtol=0)


def test_kriging_is_the_conditional_mean_of_a_gaussian_process() -> None:
    exact = (0.9 ** torch.arange(14).double())[:, None, None].expand(-1, 2, 2)
    batch = observations((0, 2, 1.0), (1, 6, 2.0), asked=((0, 4), (0, 9)))
    predicted = kriging(batch, exact, nugget=0.0)[0]
    # A Markov process: between two values, and after the last one, in closed form.
    a = 0.9**2
    assert predicted[0].item() == pytest.approx(a / (1 + a * a) * (1.0 + 2.0))
    assert predicted[1].item() == pytest.approx(0.9**3 * 2.0)


def test_kriging_error_is_that_of_theory() -> None:
    series = autoregression(40_000)
    sampling = Sampling(hours=10, ahead=3, counts=(4,), inside=2, after=2)
    exact = (0.9 ** torch.arange(14).double())[:, None, None].expand(-1, 2, 2)
    starts = torch.arange(0, 39_900, 13)
    batch = sample(series, starts, torch.full_like(starts, 4), sampling, generator())
    nugget = 0.01
    errors = (kriging(batch, exact, nugget) - batch["target"]).square()
    hours, asked = batch["hours"], batch["asked_hours"]
    among = 0.9 ** (hours[:, :, None] - hours[:, None]).abs().double()
    across = 0.9 ** (asked[:, :, None] - hours[:, None]).abs().double()
    weight = torch.linalg.solve(among + nugget * torch.eye(4), across.transpose(1, 2)).transpose(
        1, 2
    )
    variance = 1 - 2 * (weight * across).sum(-1) + (weight @ among * weight).sum(-1)
    assert errors.mean().item() == pytest.approx(variance.mean().item(), rel=0.1)


def test_time_codes_tell_hours_apart() -> None:
    code = time_code(torch.arange(0, int(LONGEST_PERIOD / 2)), 64)
    likeness = code @ code.T / 32
    assert likeness.diagonal().allclose(torch.ones(len(code)))
    likeness.fill_diagonal_(-1)
    assert likeness.max() < 0.995


def test_references_are_ordered_and_the_same_for_every_pattern() -> None:
    found = [IrregularSeries(pattern, Scale.TINY).references(0) for pattern in PATTERNS]
    assert found[0] == found[1]
    assert set(found[0]) == {reference.name for reference in IrregularSeries.info.references}
    assert found[0]["kriging"] < found[0]["linear"] < found[0]["last-observation"]
    assert found[0]["kriging-ahead"] < found[0]["last-observation-ahead"]


class Constant(nn.Module):
    """Always the same value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, batch: Batch) -> Tensor:
        return self.value.expand_as(batch["asked_hours"])


def test_metrics_of_a_constant(tiny: IrregularSeries) -> None:
    with torch.no_grad():
        scores = tiny.evaluate(Constant(0.5), "test", 0)
    assert set(scores) == {metric.name for metric in tiny.info.metrics}
    asked = tiny.questions("test", 0)
    inside, after = tiny.sampling.inside, tiny.sampling.after
    for density, batch in asked.items():
        assert batch["target"].shape[1] == inside + after
        expected = (batch["target"][:, :inside] - 0.5).square().mean().item()
        assert scores[f"mse_{density}"] == pytest.approx(expected, rel=1e-5)
    parts = [scores[f"mse_{density}"] for density in asked]
    assert scores["mse"] == pytest.approx(sum(parts) / 3)


def test_the_model_reads_no_target_and_no_masked_value(tiny: IrregularSeries) -> None:
    batch = tiny.training_batch(generator())
    assert not batch["observed"].all()
    model = model_of(tiny)
    with torch.no_grad():
        before = model(batch)
        changed = {**batch, "target": batch["target"] + 1}
        changed["values"] = torch.where(batch["observed"], batch["values"], 9.0)
        changed["variables"] = torch.where(batch["observed"], batch["variables"], 3)
        torch.testing.assert_close(model(changed), before, atol=1e-5, rtol=1e-5)
        seen = {**batch, "values": batch["values"] + batch["observed"].float()}
        assert not torch.allclose(model(seen), before)


def test_without_attention_no_observation_matters(tiny: IrregularSeries) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    with torch.no_grad():
        assert torch.equal(model(batch), model({**batch, "values": batch["values"] + 1}))


class Watch(SoftmaxAttention):
    """Softmax that keeps what it was told."""

    def forward(self, q, k, v, context=None):
        self.seen = (q.shape[-2], k.shape[-2], context)
        return super().forward(q, k, v, context)


def test_slots_are_told_masks_and_time_stamps(tiny: IrregularSeries) -> None:
    slots = Slots(tiny.pattern, Watch, SoftmaxAttention)
    model = tiny.build(slots)
    batch = tiny.training_batch(generator())
    model(batch)
    assert len(slots.candidates) == tiny.setting.layers
    for module in slots.candidates:
        assert isinstance(module, Watch)
        length_q, length_k, context = module.seen
        assert (length_q, length_k) == tiny.length()
        valid, times = context.key_mask, context.key_times
        assert valid.shape == times.shape == (16, length_k)
        assert valid.sum() == batch["observed"].sum() + (length_k - batch["hours"].shape[1]) * 16
        rising = times.masked_fill(~valid, torch.inf)
        assert (rising[:, 1:] >= rising[:, :-1]).all(), "tokens stand in the order of time"
        assert context.query_times.shape == (16, length_q)


def test_training_batches_are_a_function_of_the_seed(tiny: IrregularSeries) -> None:
    first, again, other = (tiny.training_batch(generator(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["values"], other["values"])
    counts = first["observed"].sum(1)
    assert min(tiny.sampling.counts) <= counts.min()
    assert counts.max() <= tiny.sampling.most


def test_tiny_trains_and_needs_attention(tiny: IrregularSeries) -> None:
    scores = {}
    for attention in (SoftmaxAttention, NoAttention):
        torch.manual_seed(0)
        slots = Slots(tiny.pattern, attention, SoftmaxAttention)
        model = tiny.build(slots)
        train(tiny, model, slots.candidates, 0, lambda **_: None)
        with torch.no_grad():
            scores[attention] = tiny.evaluate(model.eval(), "test", 0)["mse"]
    assert scores[SoftmaxAttention] < 0.97 * scores[NoAttention]


def test_pictures_show_whole_courses(tiny: IrregularSeries) -> None:
    with torch.no_grad():
        shown = tiny.artifacts(model_of(tiny), 0)
    assert [artifact.name for artifact in shown] == ["course-1", "course-2"]


def test_base_takes_a_step() -> None:
    base = IrregularSeries(Pattern.NONCAUSAL_CROSS, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    model = model_of(base)
    loss = base.loss(model, batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_and_folders(tmp_path: Path) -> None:
    hashes = {
        IrregularSeries(PATTERNS[0], scale).data_hash for scale in IrregularSeries.info.scales
    }
    assert len(hashes) == 3
    with pytest.raises(UsageError, match="data folder"):
        IrregularSeries(PATTERNS[0], Scale.TINY, tmp_path)
