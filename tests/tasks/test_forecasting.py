"""Forecasting: windows in time order, nothing of the future in the inputs, known errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from attentions.softmax_exact import ExactSoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from tasks.data.embedded import dataset
from tasks.forecasting.data import Series, calendar_features
from tasks.forecasting.series_task import forecast
from tasks.forecasting.task import Forecasting
from tests.tasks.forecasting_cases import PATTERNS, table, write

CANDIDATES = [SoftmaxAttention, ExactSoftmaxAttention, NoAttention]
HISTORY, HORIZON = 96, 24
WINDOW = HISTORY + HORIZON


@pytest.fixture(scope="module", params=PATTERNS)
def task(request: pytest.FixtureRequest) -> Forecasting:
    return Forecasting(request.param, Scale.TINY)


def build(task: Forecasting, candidate: type[Attention], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))


def draw(task: Forecasting, seed: int) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


class Persistence(nn.Module):
    """The last value, for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, history: Tensor, history_times: Tensor, horizon_times: Tensor) -> Tensor:
        return history[:, -1:].expand(-1, horizon_times.shape[1], -1)


# The data


def test_splits_are_consecutive_and_every_window_stays_in_its_split(tmp_path: Path) -> None:
    """The first column counts the rows, so a window's times can be read off its values."""
    frame = table()
    frame["load"] = np.arange(len(frame), dtype=float)
    data = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame)).data
    assert [len(s) for s in (data.train, data.validation, data.test)] == [1400, 200, 400]

    def rows(series: Series) -> set[int]:
        windows = series.windows(series.even_starts(WINDOW, 10**6), HISTORY, HORIZON)
        scaled = torch.cat([windows["history"], windows["target"]], dim=1)[..., 0]
        return set(
            (scaled.double() * data.deviation[0] + data.mean[0]).round().int().flatten().tolist()
        )

    assert rows(data.train) == set(range(1400))
    assert rows(data.validation) == set(range(1400, 1600))
    assert rows(data.test) == set(range(1600, 2000))


def test_scale_is_of_the_training_rows_only(tmp_path: Path) -> None:
    frame = table()
    frame.loc[1400:, ["load", "OT"]] = 1e6
    data = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame)).data
    known = frame[["load", "OT"]].to_numpy()[:1400]
    np.testing.assert_allclose(data.mean, known.mean(0))
    np.testing.assert_allclose(data.deviation, known.std(0))
    torch.testing.assert_close(data.train.values.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.train.values.std(0, correction=0), torch.ones(2))


def test_constant_column_stays_finite(tmp_path: Path) -> None:
    frame = table().assign(OT=5.0)
    data = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame)).data
    assert torch.equal(data.test.values[:, 1], torch.zeros(400))


def test_calendar_features_come_from_the_time_stamps() -> None:
    dates = pd.DatetimeIndex(["2013-01-07 00:00", "2013-01-07 06:00", "2013-07-03 12:00"])
    day, week, year = calendar_features(dates).unflatten(1, (3, 2)).unbind(1)
    torch.testing.assert_close(day, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]))
    torch.testing.assert_close(week[0], torch.tensor([0.0, 1.0]))  # Monday begins the week
    assert year[2, 1] < -0.99  # half a year from New Year
    torch.testing.assert_close(week.norm(dim=1), torch.ones(3))


def test_embedded_data_is_split_as_its_manifest_says(task: Forecasting) -> None:
    data, manifest = task.data, dataset("nyc-weather")
    begin = 0
    for name, series in (
        ("train", data.train),
        ("validation", data.validation),
        ("test", data.test),
    ):
        assert manifest.split(name) == (f"{begin}:{begin + len(series)}",)
        begin += len(series)
    assert len(data.columns) == 24
    for series in (data.train, data.validation, data.test):
        assert series.values.isfinite().all()
    assert task.dataset == "nyc-weather"


# The task


def test_batches_follow_the_generator(task: Forecasting) -> None:
    one, same, other = draw(task, 1), draw(task, 1), draw(task, 2)
    assert one["history"].shape == (task.recipe.batch_size, HISTORY, 24)
    assert one["target"].shape == (task.recipe.batch_size, HORIZON, 24)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["history"], other["history"])


def test_target_does_not_reach_the_prediction(task: Forecasting) -> None:
    """A change of every value after the history changes the target, not the forecast."""
    model = build(task, SoftmaxAttention).eval()
    series = task.data.train
    changed = Series(series.values.clone(), series.times)
    changed.values[HISTORY:] += 10
    start = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        before = series.windows(start, HISTORY, HORIZON)
        after = changed.windows(start, HISTORY, HORIZON)
        assert torch.equal(forecast(model, before), forecast(model, after))
        assert not torch.equal(before["target"], after["target"])
        assert task.loss(model, before) != task.loss(model, after)


def test_history_reaches_the_prediction_only_through_the_slots(task: Forecasting) -> None:
    """Without attention only the last value is left: older history changes nothing."""
    batch = dict(draw(task, 0))
    older = {**batch, "history": batch["history"].clone()}
    older["history"][:, :-1] += 1
    with torch.no_grad():
        without = build(task, NoAttention).eval()
        assert torch.equal(forecast(without, batch), forecast(without, older))
        model = build(task, SoftmaxAttention).eval()
        assert not torch.allclose(forecast(model, batch), forecast(model, older))


def test_persistence_error_is_that_of_numpy(tmp_path: Path) -> None:
    frame = table(rows=1300)  # 260 test rows: every window is evaluated
    task = Forecasting(PATTERNS[0], Scale.SMALL, write(tmp_path, frame))
    raw = frame[["load", "OT"]].to_numpy()
    scaled = ((raw - raw[:910].mean(0)) / raw[:910].std(0))[1040:]
    errors = np.array(
        [
            scaled[now + 1 : now + 1 + HORIZON] - scaled[now]
            for now in range(HISTORY - 1, len(scaled) - HORIZON)
        ]
    )
    with torch.no_grad():
        metrics = task.evaluate(Persistence(), "test", 0)
    assert metrics == pytest.approx(
        {
            "mse": np.square(errors).mean(),
            "mae": np.abs(errors).mean(),
            "mse_target": np.square(errors[..., 1]).mean(),
            "mae_target": np.abs(errors[..., 1]).mean(),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(
    ("file", "columns", "target"),
    [
        ("ETTh1.csv", ["HUFL", "OT", "last"], "OT"),
        ("ECL.csv", ["MT_000", "MT_320", "last"], "MT_320"),
        ("WTH.csv", ["WetBulbCelsius", "last"], "WetBulbCelsius"),
        ("other.csv", ["OT", "JFK_temp", "last"], "JFK_temp"),
        ("other.csv", ["OT", "last"], "last"),
    ],
)
def test_target_column(tmp_path: Path, file: str, columns: list[str], target: str) -> None:
    """The target's error alone is not zero when only the target moves."""
    frame = pd.DataFrame({"date": pd.date_range("2016-07-01", periods=14_400, freq="h")})
    for column in columns:
        frame[column] = np.sin(np.arange(len(frame))) if column == target else 1.0
    task = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame, file))
    with torch.no_grad():
        scores = task.evaluate(Persistence(), "test", 0)
    assert scores["mse_target"] == pytest.approx(len(columns) * scores["mse"])
    assert scores["mae_target"] == pytest.approx(len(columns) * scores["mae"])
    assert scores["mse"] > 0.1


def test_backbone_is_the_same_for_every_candidate(task: Forecasting) -> None:
    models = [build(task, candidate, seed=3) for candidate in CANDIDATES]
    first = models[0].state_dict()
    for model in models[1:]:
        state = model.state_dict()
        assert state.keys() == first.keys()
        assert all(torch.equal(state[name], first[name]) for name in first)


def test_one_step_lowers_the_loss(task: Forecasting) -> None:
    model = build(task, SoftmaxAttention).eval()  # no dropout, so the two losses compare
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()


def test_evaluation_reports_the_declared_metrics_and_repeats(task: Forecasting) -> None:
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        once, again = task.evaluate(model, "test", 0), task.evaluate(model, "test", 1)
    assert list(once) == [metric.name for metric in task.info.metrics]
    assert once == again


def test_slots_are_those_of_the_pattern(task: Forecasting) -> None:
    slots = Slots(task.pattern, ExactSoftmaxAttention, SoftmaxAttention)
    task.build(slots)
    assert slots.candidates
    assert {module.pattern for module in slots.candidates} == {task.pattern}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def by_hand(pattern: Pattern, dim: int, hidden: int, layers: tuple[int, int], window: int) -> int:
    """Parameters of the backbone of a pattern; 24 variables, 6 time features."""
    attention = 4 * (dim * dim + dim)
    feed_forward = dim * hidden + hidden + hidden * dim + dim
    norm = 2 * dim
    self_layer = attention + feed_forward + 2 * norm
    inputs = (24 + 6) * dim + dim + 6 * dim + dim
    ends = inputs + window * dim + norm + 24 * dim + 24
    if pattern is Pattern.NONCAUSAL_SELF:
        return ends + dim + sum(layers) * self_layer
    cross_layer = 2 * attention + feed_forward + 3 * norm
    return ends + norm + layers[0] * self_layer + layers[1] * cross_layer


@pytest.mark.parametrize(
    ("pattern", "expected"), [(PATTERNS[0], 11_083_288), (PATTERNS[1], 10_031_128)]
)
def test_parameters_at_the_published_geometry(pattern: Pattern, expected: int) -> None:
    """Informer's width 512 and feed-forward 2048."""
    task = Forecasting(pattern, Scale.PAPER)
    parameters = count(build(task, SoftmaxAttention))
    assert parameters == by_hand(pattern, 512, 2048, (2, 1), 336 + 720) == expected


@pytest.mark.parametrize(("pattern", "layers"), [(PATTERNS[0], (2, 2)), (PATTERNS[1], (3, 0))])
def test_base_scale_takes_a_step(
    pattern: Pattern, layers: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Forecasting(pattern, Scale.BASE)
    few = replace(task.recipe, batch_size=4)
    monkeypatch.setattr(Forecasting, "recipe", few)
    model = build(task, SoftmaxAttention)
    assert count(model) == by_hand(pattern, 128, 512, layers, 168 + 48)
    batch = draw(task, 0)
    optimizer = torch.optim.AdamW(model.eval().parameters(), lr=1e-3)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()
