"""Forecasting electric power: hourly means, what repeating the past scores, attention's margin."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from runners.training import train
from tasks.data.embedded import dataset
from tasks.forecasting import simbench, task
from tasks.forecasting.simbench import ForecastingSimbench
from tasks.forecasting.task import Forecasting


@pytest.fixture(scope="module")
def small() -> ForecastingSimbench:
    return ForecastingSimbench(Pattern.NONCAUSAL_CROSS, Scale.SMALL)


class Repeat(nn.Module):
    """The last steps of the history, over and over."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, history: Tensor, history_times: Tensor, horizon_times: Tensor) -> Tensor:
        times = -(-horizon_times.shape[1] // self.steps)
        return history[:, -self.steps :].repeat(1, times, 1)[:, : horizon_times.shape[1]]


def test_an_hour_is_the_mean_of_its_quarters(small: ForecastingSimbench) -> None:
    frame = dataset("simbench-profiles").table().to_pandas()
    times = pd.DatetimeIndex(frame.pop("timestamp"))
    assert (times[1:] - times[:-1] == pd.Timedelta(minutes=15)).all()
    assert len(times) % 4 == 0
    table = ForecastingSimbench.embedded_table()
    assert table.dates.equals(times[::4])
    expected = frame.to_numpy(float).reshape(-1, 4, frame.shape[1]).mean(1)
    np.testing.assert_allclose(table.numbers.to_numpy(), expected, rtol=1e-6, atol=1e-9)
    assert small.data.columns == tuple(frame.columns)


def test_splits_are_those_of_the_manifest(small: ForecastingSimbench) -> None:
    """In hours and quarter hours, give or take the hour that 70 % cut through."""
    entry, begin = dataset("simbench-profiles"), 0
    for name in ("train", "validation", "test"):
        end = begin + len(getattr(small.data, name))
        first, last = map(int, entry.split(name)[0].split(":"))
        assert abs(4 * begin - first) < 4
        assert abs(4 * end - last) < 4
        begin = end


@pytest.mark.parametrize(
    ("task_class", "module"), [(ForecastingSimbench, simbench), (Forecasting, task)]
)
def test_documented_baselines(task_class: type[Forecasting], module: object) -> None:
    """The module says what the last value and the last day score, repeated."""
    small = task_class(Pattern.NONCAUSAL_CROSS, Scale.SMALL)
    with torch.no_grad():
        value = small.evaluate(Repeat(1), "test", 0)["mse"]
        day = small.evaluate(Repeat(24), "test", 0)["mse"]
    text = " ".join((module.__doc__ or "").split())
    stated = re.search(r"last value scores an mse of (\d\.\d+), the last day (\d\.\d+)", text)
    assert stated is not None
    assert float(stated[1]) == pytest.approx(value, abs=0.006)
    assert float(stated[2]) == pytest.approx(day, abs=0.006)


def test_tiny_beats_the_baselines_and_needs_attention() -> None:
    """A few seconds of training, judged on the validation split."""
    tiny = ForecastingSimbench(Pattern.NONCAUSAL_CROSS, Scale.TINY)
    scores = {}
    for candidate in (SoftmaxAttention, NoAttention):
        slots = Slots(tiny.pattern, candidate, SoftmaxAttention)
        torch.manual_seed(0)
        model = tiny.build(slots)
        trained = train(tiny, model, slots.candidates, 0, lambda **event: None)
        scores[candidate] = trained.validation["mse"]
    with torch.no_grad():
        day = tiny.evaluate(Repeat(24), "validation", 0)["mse"]
    assert scores[SoftmaxAttention] < 0.93 * scores[NoAttention]
    assert scores[SoftmaxAttention] < 0.93 * day
