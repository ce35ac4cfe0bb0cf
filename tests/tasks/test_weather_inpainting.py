"""Weather inpainting: blocks, interpolation, what a query knows, one tiny cell."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Scale
from tasks.forecasting.data import Series
from tasks.problems.hidden import hide
from tasks.weather_inpainting.interpolation import courses, linear_interpolation
from tasks.weather_inpainting.task import WeatherInpainting, scores
from tasks.weather_inpainting.windows import draw
from tests.tasks.hidden_cases import (
    NC,
    generator,
    model_of,
    same,
    shuffled_known,
    trained_score,
    without,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> WeatherInpainting:
    return WeatherInpainting(NC, Scale.TINY)


def test_blocks_are_hours_of_one_variable() -> None:
    # The value of variable k at hour t is 100 k + t; the calendar says t.
    hour = torch.arange(40.0)
    series = Series(hour[:, None] + 100 * torch.arange(3.0), hour[:, None])
    starts = torch.tensor([0, 7, 20])
    batch = draw(series, starts, 4, 5, 6, generator())
    assert torch.equal(batch["calendar"][..., 0], starts[:, None] + torch.tensor([2, 7, 12, 17]))
    for places, blocks in (("asked_places", "target"), ("known_places", "known")):
        variable, block = batch[places] % 3, batch[places] // 3
        first = 100 * variable + starts[:, None] + 5 * block
        assert torch.equal(batch[blocks], first[..., None] + torch.arange(5.0))


def test_linear_interpolation_by_hand() -> None:
    first = torch.tensor([[0.0, 1.0], [9.0, 9.0], [4.0, 6.0], [9.0, 9.0]])
    second = torch.full((4, 2), 7.0)
    blocks = torch.stack([first, second], dim=1).flatten(0, 1)[None]  # of two variables by turns
    hidden = torch.zeros(1, 8, dtype=torch.bool)
    hidden[0, [1, 2, 3, 5, 6, 7]] = True  # of the second variable everything
    found = linear_interpolation(hide(blocks, hidden), 2)[0]
    assert found[1].tolist() == pytest.approx([2.0, 3.0])
    assert found[4].tolist() == pytest.approx([6.0, 6.0])
    assert found[[0, 2, 3, 5]].abs().max() == 0


def test_courses_are_hour_by_hour() -> None:
    course = torch.arange(2 * 3 * 8).view(2, 3, 8)
    blocks = course.unflatten(2, (4, 2)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(courses(blocks, 3), course)


def test_scores_of_a_shifted_answer(tiny: WeatherInpainting) -> None:
    found = scores(lambda batch: batch["target"] + 0.5, tiny.questions("test", 0))
    assert set(found) == {metric.name for metric in tiny.info.metrics}
    assert found == {"mse": pytest.approx(0.25), "mae": pytest.approx(0.5)}


def test_references_are_ordered(tiny: WeatherInpainting) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["linear"] < found["training-mean"]


def test_what_is_hidden_does_not_reach_the_answer(tiny: WeatherInpainting) -> None:
    """Windows that differ in hidden blocks alone are asked and answered the same."""
    starts = torch.tensor([0, 100, 200])
    series, setting = tiny.data.train, tiny.setting
    batch = tiny._draw(series, starts, generator())
    values = series.values.clone()
    kinds = values.shape[1]
    for start, places in zip(starts.tolist(), batch["asked_places"].tolist(), strict=True):
        for place in places:
            first = start + place // kinds * setting.hours
            values[first : first + setting.hours, place % kinds] += 1
    other = tiny._draw(Series(values, series.times), starts, generator())
    assert same(without(batch, "target"), without(other, "target"))
    torch.testing.assert_close(other["target"], batch["target"] + 1)
    model = model_of(tiny)
    with torch.no_grad():
        assert torch.equal(model(batch), model(other))


def test_the_order_of_the_known_does_not_matter(tiny: WeatherInpainting) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        shuffled = shuffled_known(batch, "known", "known_places")
        torch.testing.assert_close(model(batch), model(shuffled), atol=1e-5, rtol=1e-5)


def test_without_attention_a_query_knows_variable_and_time_only(tiny: WeatherInpainting) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    with torch.no_grad():
        assert torch.equal(model(batch), model({**batch, "known": batch["known"].flip(0)}))


def test_holes_are_fresh_in_training_and_fixed_in_tests(tiny: WeatherInpainting) -> None:
    draws = generator(3)
    first, second = tiny.training_batch(draws), tiny.training_batch(draws)
    assert not torch.equal(first["asked_places"], second["asked_places"])
    assert same(first, tiny.training_batch(generator(3)))
    one, two = tiny.questions("test", 0), tiny.questions("test", 0)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_tiny_trains_and_needs_attention(tiny: WeatherInpainting) -> None:
    assert trained_score(tiny, SoftmaxAttention) < 0.85 * trained_score(tiny, NoAttention)


def test_base_takes_a_step() -> None:
    base = WeatherInpainting(NC, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    assert (batch["target"].shape[1], batch["known"].shape[1]) == base.length()
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_tell_scales_apart(tiny: WeatherInpainting) -> None:
    assert tiny.data_hash != WeatherInpainting(NC, Scale.SMALL).data_hash
