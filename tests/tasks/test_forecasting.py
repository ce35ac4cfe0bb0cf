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
from cab.errors import DataError
from tasks.data.embedded import dataset
from tasks.forecasting.data import Series, calendar_features
from tasks.forecasting.published import published
from tasks.forecasting.series_task import forecast
from tasks.forecasting.task import Forecasting

PATTERNS = [Pattern.NONCAUSAL_CROSS, Pattern.NONCAUSAL_SELF]
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


def table(rows: int = 2000) -> pd.DataFrame:
    """Two variables with different scales, hourly."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "date": pd.date_range("2016-07-01", periods=rows, freq="h").astype(str),
            "load": 300 + 50 * generator.standard_normal(rows).cumsum(),
            "OT": generator.standard_normal(rows),
        }
    )


def write(folder: Path, frame: pd.DataFrame, name: str = "load.csv") -> Path:
    frame.to_csv(folder / name, index=False)
    return folder


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


# --data-dir


def test_data_dir_is_used_and_hashed(tmp_path: Path) -> None:
    frame = table()
    one = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame))
    frame.loc[1999, "OT"] += 1
    two = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame))
    assert one.data.columns == ("load", "OT")
    assert one.data_hash != two.data_hash


MALFORMED = [
    (table().rename(columns={"date": "when"}), "begins with column 'when'"),
    (table()[["date"]], "has one column only"),
    (table().assign(date="yesterday-ish"), "row 0 has no date"),
    (table().iloc[::-1], "not in order"),
    (table().assign(OT="n/a!"), "column 'OT' is not all finite numbers"),
    (table().assign(OT=np.nan), "column 'OT' is not all finite numbers"),
    (table(rows=0), "has no rows"),
    (table(rows=1000), "validation split has 100 of 1000 rows, a window needs 120"),
    (pd.DataFrame(), "cannot be read"),
]


@pytest.mark.parametrize(("frame", "complaint"), MALFORMED)
def test_malformed_csv_is_named(tmp_path: Path, frame: pd.DataFrame, complaint: str) -> None:
    write(tmp_path, frame)
    with pytest.raises(DataError, match=complaint) as caught:
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path)
    assert "load.csv" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Forecasting.data_problems(tmp_path)


def test_every_problem_is_reported(tmp_path: Path) -> None:
    """Two columns that are not numbers, a date that is none and one out of order."""
    frame = table().assign(OT="n/a!", third=np.inf)
    frame.loc[7, "date"] = "tomorrow"
    frame.loc[9, "date"] = "2001-01-01 00:00:00"
    problems = Forecasting.data_problems(write(tmp_path, frame))
    assert len(problems) == 4
    for problem, words in zip(problems, ("row 7", "not in order", "'OT'", "'third'"), strict=True):
        assert words in problem
        assert "load.csv" in problem
        assert "\n" not in problem
    # Windows of scale paper are the longest that are drawn.
    short = write(tmp_path, table(rows=2000))
    assert "a window needs 1056" in Forecasting.data_problems(short)[0]
    assert Forecasting.data_problems(write(tmp_path, table(rows=8000))) == []


def test_data_dir_needs_exactly_one_csv(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 \.csv files \(none\); expected"):
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path)
    with pytest.raises(DataError, match=r"0 \.csv files"):
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path / "nowhere")
    write(tmp_path, table())
    table().to_csv(tmp_path / "ETTh2.csv", index=False)
    with pytest.raises(DataError, match=r"2 \.csv files \(ETTh2\.csv, load\.csv\)"):
        Forecasting(PATTERNS[0], Scale.TINY, tmp_path)
    assert len(Forecasting.data_problems(tmp_path)) == 1


# The published data sets


@pytest.mark.parametrize(("file", "hourly_rows"), [("ETTh1.csv", 1), ("ETTm1.csv", 4)])
def test_ett_is_split_by_months(tmp_path: Path, file: str, hourly_rows: int) -> None:
    """12, 4 and 4 months of 30 days; what follows is not used."""
    month = 30 * 24 * hourly_rows
    frame = table(rows=20 * month + 500)
    frame["load"] = np.arange(len(frame), dtype=float)
    data = Forecasting(PATTERNS[0], Scale.TINY, write(tmp_path, frame, file)).data

    def rows(series: Series) -> tuple[int, int]:
        counted = series.values[:, 0].double() * data.deviation[0] + data.mean[0]
        return round(counted[0].item()), round(counted[-1].item()) + 1

    assert rows(data.train) == (0, 12 * month)
    assert rows(data.validation) == (12 * month, 16 * month)
    assert rows(data.test) == (16 * month, 20 * month)

    paper = Forecasting(PATTERNS[0], Scale.PAPER, tmp_path)
    history = published(file.removesuffix(".csv")).multivariate.history
    assert rows(paper.data.train) == (0, 12 * month)
    assert rows(paper.data.validation) == (12 * month - history, 16 * month)
    assert rows(paper.data.test) == (16 * month - history, 20 * month)


def test_short_ett_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, table(), "ETTh1.csv")
    with pytest.raises(DataError, match=r"ETTh1\.csv: it has 2000 rows, .* has 14400"):
        Forecasting(PATTERNS[0], Scale.TINY, folder)
    assert "14400" in Forecasting.data_problems(folder)[0]


@pytest.mark.parametrize(
    ("file", "variables", "history", "horizon", "layers"),
    [
        ("ETTh1.csv", 7, 336, 720, (2, 1)),
        ("ETTh1.csv", 1, 168, 720, (2, 1)),
        ("ETTm1.csv", 7, 672, 672, (2, 1)),
        ("ECL.csv", 3, 336, 960, (3, 2)),
        ("WTH.csv", 3, 720, 720, (3, 2)),
        ("another.csv", 3, 336, 720, (2, 1)),
    ],
)
def test_paper_scale_has_the_published_lengths(
    tmp_path: Path, file: str, variables: int, history: int, horizon: int, layers: tuple[int, int]
) -> None:
    rows = 57_600 if file.startswith("ETTm") else 14_400
    columns = {f"c{i}": np.sin(np.arange(rows) / (i + 1)) for i in range(variables)}
    frame = pd.DataFrame({"date": pd.date_range("2016-07-01", periods=rows, freq="15min")})
    task = Forecasting(PATTERNS[0], Scale.PAPER, write(tmp_path, frame.assign(**columns), file))
    assert (task.history, task.horizon) == (history, horizon)
    assert (task.geometry.encoder_layers, task.geometry.decoder_layers) == layers
    assert task.length() == (horizon, history)
    epochs = task.recipe.steps * task.recipe.batch_size / task.training_windows
    assert 5.9 < epochs <= 6


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
