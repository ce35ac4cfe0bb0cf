"""Digits as pixels: shifts, shrinking, the closed form it is read against."""

from __future__ import annotations

import pytest
import torch

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from tasks.backbones.positions import sinusoid
from tasks.data.images import digits
from tasks.pixel_classification.model import sinusoid_grid
from tasks.pixel_classification.pixels import ridge_classifier, shift, shrink
from tasks.pixel_classification.task import PixelClassification


def test_a_shift_moves_every_picture_by_its_own_whole_pixels() -> None:
    images = torch.zeros(400, 28, 28, dtype=torch.uint8)
    images[:, 14, 10] = torch.arange(400).clamp(max=255).byte()
    moved = shift(images, 3, torch.Generator().manual_seed(0))
    places = moved[1:].flatten(1).argmax(1)
    rows, columns = places // 28 - 14, places % 28 - 10
    assert (moved[1:].flatten(1).amax(1) == images[1:, 14, 10]).all()
    for offsets in (rows, columns):
        assert set(offsets.tolist()) == set(range(-3, 4))
        counts = (offsets + 3).bincount() / 399
        torch.testing.assert_close(counts, torch.full((7,), 1 / 7), atol=0.07, rtol=0)
    assert abs(torch.corrcoef(torch.stack([rows, columns]).double())[0, 1].item()) < 0.15


def test_what_leaves_the_picture_is_lost() -> None:
    images = torch.full((50, 28, 28), 9, dtype=torch.uint8)
    moved = shift(images, 2, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert (moved[:, 2:-2, 2:-2] == 9).all()
    assert (moved == 0).any()
    assert torch.equal(shift(images, 0, torch.Generator()), images)


def test_shrinking_averages_squares() -> None:
    images = torch.arange(28 * 28).reshape(1, 28, 28).remainder(251).byte()
    small = shrink(images, 7).view(7, 7)
    expected = images[0, 4:8, 8:12].double().mean().item() / 255
    assert small[1, 2].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(shrink(images, 28)[0], images[0].flatten() / 255)


def test_grey_levels_are_standardised_by_the_unshifted_training_digits() -> None:
    task = PixelClassification(Pattern.NONCAUSAL_SELF, Scale.TINY)
    pixels = task.examples("test", 0)["pixels"]
    assert pixels.shape == (1000, 49)
    assert abs(pixels.mean().item()) < 0.1
    assert pixels.std().item() == pytest.approx(1, abs=0.1)


def test_the_splits_are_those_of_the_digits() -> None:
    task = PixelClassification(Pattern.NONCAUSAL_SELF, Scale.TINY)
    assert torch.equal(task.examples("test", 0)["labels"], digits("test")[1])
    labels = task.training_batch(torch.Generator().manual_seed(0))["labels"]
    assert len(labels.unique()) > 5


def test_positions_tell_rows_and_columns() -> None:
    grid = sinusoid_grid(5, 16, 100.0, 1.0).view(5, 5, 16)
    line = sinusoid(5, 8, 100.0, 1.0)
    torch.testing.assert_close(grid[3, 1], torch.cat([line[3], line[1]]))


def test_the_grid_reaches_the_mechanism() -> None:
    seen = []

    class Watching(SoftmaxAttention):
        def forward(self, q, k, v, context=None):
            seen.append(context.query_grid)
            return super().forward(q, k, v, context)

    task = PixelClassification(Pattern.NONCAUSAL_SELF, Scale.TINY)
    model = task.build(Slots(task.pattern, Watching, SoftmaxAttention))
    model(task.examples("test", 0)["pixels"][:2])
    assert set(seen) == {(7, 7)}


def test_ridge_regression_is_least_squares_with_a_small_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 6, generator=generator, dtype=torch.float64) + 2
    labels = (x @ torch.randn(6, 3, generator=generator, dtype=torch.float64)).argmax(1)
    weights, intercepts = ridge_classifier(x, labels, 3, penalty=1e-12)
    targets = torch.nn.functional.one_hot(labels, 3).double()
    fitted = torch.linalg.lstsq(torch.cat([x, x.new_ones(300, 1)], 1), targets).solution
    torch.testing.assert_close(weights, fitted[:-1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(intercepts, fitted[-1], atol=1e-6, rtol=1e-6)
    heavy, constant = ridge_classifier(x, labels, 3, penalty=1e12)
    assert heavy.abs().max() < 1e-9
    torch.testing.assert_close(constant, targets.mean(0))


def test_ridge_regression_knows_digits_that_stay_in_place() -> None:
    images, labels = digits("train")
    weights, intercepts = ridge_classifier(shrink(images, 14).double(), labels, 10, 1e-3)
    test, truth = digits("test")
    predicted = (shrink(test, 14).double() @ weights + intercepts).argmax(1)
    assert (predicted == truth).double().mean().item() > 0.8
