"""Forecasting by tokens: windows, bins, codes of hours, sampled forecasts and their scores."""

from __future__ import annotations

import math

import pytest
import torch

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots, seeds
from tasks.forecasting_tokens.baselines import Counts, last_day
from tasks.forecasting_tokens.sampling import crps, sampled
from tasks.forecasting_tokens.task import ForecastingTokens
from tasks.forecasting_tokens.tokens import DAY, WEEK, Bins, Windows, hour_codes, load
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import START

CC = Pattern.CAUSAL_CROSS


@pytest.fixture(scope="module")
def task() -> ForecastingTokens:
    return ForecastingTokens(CC, Scale.TINY)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return Windows(load("simbench-profiles")["train"], 48, DAY)


def test_hours_are_means_of_quarters() -> None:
    series = load("simbench-profiles")
    assert {split: tuple(x.shape) for split, x in series.items()} == {
        "train": (55, 6115),
        "validation": (55, 873),
        "test": (55, 1747),
    }
    from tasks.data.embedded import dataset

    column = dataset("simbench-profiles").select("test")["G0-A"].to_numpy()
    assert series["test"][1, 7].item() == pytest.approx(column[28:32].mean())


def test_windows_are_divided_by_the_mean_of_their_past(windows) -> None:
    values, mean = windows.random(200, seeds.generator(0, "data"))
    assert mean.shape == (200, 1)
    assert 0 < mean.min() < mean.max() < 1, "of rated power"
    assert values.shape == (200, 72)
    torch.testing.assert_close(values[:, :48].mean(1), torch.ones(200))
    assert (values[:, :48].std(1) > 0.02).all()


def test_windows_that_say_nothing_are_left_out_and_all_others_are_there() -> None:
    told = torch.arange(1.0, 13.0, dtype=torch.float64)
    series = torch.stack([told, torch.ones(12, dtype=torch.float64), 0 * told])
    found = Windows(series, 4, 2)
    assert len(found) == 12 - 6 + 1
    values, mean = found.take(torch.arange(len(found)))
    assert (mean[0], mean[-1]) == (2.5, 8.5)
    assert values[0].tolist() == pytest.approx([x / 2.5 for x in range(1, 7)])
    assert values[-1].tolist() == pytest.approx([x / 8.5 for x in range(7, 13)])


def test_only_the_past_decides_whether_a_window_is_there() -> None:
    series = torch.tensor([[1.0, 2.0, 1.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 5.0, 2.0]])
    found = Windows(series.double(), 4, 2)
    assert len(found) == 1
    assert found.take(torch.tensor([0])).values[0, 4:].tolist() == [0.0, 0.0]


def test_what_is_ahead_has_no_say_in_the_source(task) -> None:
    values = task.drawn("test", 0).values
    changed = values.clone()
    changed[:, -DAY:] *= 3
    source, other = (task.bins.batch(x, task.setting.past)["source"] for x in (values, changed))
    assert torch.equal(source, other)


def test_bins_hold_equally_many_values_but_for_the_zeros(windows) -> None:
    bins = Bins(windows, 30)
    values = windows.random(4000, seeds.generator(1, "data")).values
    zeros = (values == 0).double().mean().item()
    assert zeros > 2 / 30, "the zeros would fill more than two bins"
    assert 30 - zeros * 30 - 1 < len(bins) < 30
    assert (bins.edges.diff() > 0).all()
    share = torch.bincount(bins.of(values).flatten(), minlength=len(bins)) / values.numel()
    assert share[0].item() == pytest.approx(zeros, abs=1e-3)
    assert share[1] < 1 / 30, "the rest of the bins that the zeros filled in part"
    assert (share[2:] - 1 / 30).abs().max() < 0.004
    assert torch.equal(bins.of(bins.medians), torch.arange(len(bins)))
    assert bins.medians[0] == 0


def test_batches(task) -> None:
    values = task.drawn("test", 0).values[:5]
    batch = task.bins.batch(values, 48)
    assert (batch["target"][:, 0] == START).all()
    tokens = FIRST_TOKEN + task.bins.of(values)
    assert torch.equal(torch.cat([batch["source"], batch["target"][:, 1:]], 1), tokens)


def test_codes_of_hours_come_round_after_a_day_and_a_week() -> None:
    codes = hour_codes(torch.arange(2.0 * WEEK), 64, 300.0)
    assert codes.shape == (2 * WEEK, 64)
    day, week = codes[:, 32:48], codes[:, 48:]
    torch.testing.assert_close(day[:-DAY], day[DAY:], atol=1e-3, rtol=0)
    torch.testing.assert_close(week[:-WEEK], week[WEEK:], atol=1e-3, rtol=0)
    assert (week[:DAY] - week[DAY : 2 * DAY]).abs().max() > 0.5
    assert not torch.allclose(codes[:-WEEK], codes[WEEK:], atol=0.1)


def test_crps_by_hand() -> None:
    one = torch.tensor([[[1.0, 5.0]]])
    truth = torch.tensor([[3.0, 5.0]])
    assert crps(one, truth).tolist() == [[2.0, 0.0]]
    # E|X - y| = (0 + 4) / 2; E|X - X'| = 4 / 2.
    assert crps(torch.tensor([[[3.0], [7.0]]]), truth[:, :1]).tolist() == [[1.0]]
    # Of many draws of a standard normal at its mean: 2 phi(0) - 1 / sqrt(pi).
    many = torch.randn(1, 1500, 1, generator=torch.Generator().manual_seed(0))
    expected = 2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
    assert crps(many, torch.zeros(1, 1)).item() == pytest.approx(expected, abs=0.02)


@torch.no_grad()
def test_forecasts_are_drawn_from_what_the_model_says(task) -> None:
    torch.manual_seed(0)
    model = task.build(Slots(CC, SoftmaxAttention, SoftmaxAttention)).eval()
    values = task.drawn("test", 0).values[:2]
    batch = task.bins.batch(values, 48)
    drawn = sampled(model, batch, 2, 3000, seeds.generator(0, "data"))
    assert drawn.shape == (2, 3000, 2)
    first = task.causal_outputs(model, batch)[:, 0, FIRST_TOKEN:].softmax(-1)
    for row in range(2):
        share = torch.bincount(drawn[row, :, 0], minlength=len(task.bins)) / 3000
        assert (share - first[row]).abs().max() < 0.04
    # The second hour follows the first that was drawn.
    taken = drawn[0, :, 0].mode().values
    after = drawn[0, drawn[0, :, 0] == taken, 1]
    given = torch.tensor([[START, FIRST_TOKEN + taken, FIRST_TOKEN]])
    odds = task.causal_outputs(model, {"source": batch["source"][:1], "target": given})[0, 1]
    share = torch.bincount(after, minlength=len(task.bins)) / len(after)
    assert (share - odds[FIRST_TOKEN:].softmax(-1)).abs().max() < 5 * 0.5 / len(after) ** 0.5
    assert torch.equal(task.forecasts(model, values, 0), task.forecasts(model, values, 0))


def test_last_day_and_counts(task) -> None:
    values = torch.arange(72.0)[None]
    assert torch.equal(last_day(values, DAY), values[:, 24:48])
    assert torch.equal(last_day(values, 2), values[:, 46:48])
    test = task.drawn("test", 0).values
    many = task.windows["train"].random(2000, seeds.generator(0, "data")).values
    never, learned = Counts(test[:0], task.bins, DAY), Counts(many, task.bins, DAY)
    assert never.nll(test) == pytest.approx(math.log(len(task.bins)))
    assert learned.nll(test) < never.nll(test) - 0.5
