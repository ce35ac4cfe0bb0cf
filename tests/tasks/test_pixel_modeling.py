"""Pixels one after the other: levels, neighbours, scores of models that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.errors import UsageError
from runners.training import train
from tasks.pixel_modeling.task import LEVELS, SPLITS, PixelModeling, grey_levels, neighbours
from tasks.problems.context_counts import bits_per_symbol

CS = Pattern.CAUSAL_SELF


@pytest.fixture(scope="module")
def tiny() -> PixelModeling:
    return PixelModeling(CS, Scale.TINY)


def test_levels_are_those_of_the_photographs(tiny: PixelModeling) -> None:
    side, again = tiny.setting.side, PixelModeling(CS, Scale.TINY)
    for split in SPLITS:
        pixels = tiny.pixels[split]
        assert pixels.shape == (tiny.setting.pictures[split], side**2)
        assert int(pixels.min()) >= 0
        assert int(pixels.max()) < LEVELS
        assert torch.equal(pixels, again.pixels[split])
    assert tiny.pixels["train"].unique().tolist() == list(range(LEVELS))
    test = {row.numpy().tobytes() for row in tiny.pixels["test"]}
    assert not test & {row.numpy().tobytes() for row in tiny.pixels["train"]}
    hashes = {PixelModeling(CS, scale).data_hash for scale in tiny.info.scales}
    assert len(hashes) == len(tiny.info.scales)
    with pytest.raises(UsageError, match="no noncausal-self slot"):
        PixelModeling(Pattern.NONCAUSAL_SELF, Scale.TINY)


def test_a_grey_has_its_level_whatever_the_rounding() -> None:
    """Also where it is the first of a level."""
    shades = torch.arange(256, dtype=torch.uint8)
    grey = shades.expand(1, 3, 1, -1)
    assert torch.equal(grey_levels(grey).flatten(), torch.arange(256) * LEVELS // 256)
    green = torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert grey_levels(green).item() == int(0.587 * 255) * LEVELS // 256


def test_neighbours_by_hand() -> None:
    left, above = neighbours(torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9]]), 3)
    none = LEVELS
    assert left.tolist() == [[none, 1, 2, none, 4, 5, none, 7, 8]]
    assert above.tolist() == [[none, none, none, 1, 2, 3, 4, 5, 6]]


class Counter(nn.Module):
    """Scores that a table of the pixel left gives: the reference ``left``, as a model."""

    def __init__(self, pixels: Tensor, side: int) -> None:
        super().__init__()
        self.side = side
        left = neighbours(pixels, side)[0]
        counts = F.one_hot(pixels, LEVELS).flatten(0, 1).float()
        table = torch.zeros(LEVELS + 1, LEVELS).index_add(0, left.flatten(), counts) + 0.5
        self.table = nn.Parameter((table / table.sum(1, keepdim=True)).log())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.table[neighbours(pixels, self.side)[0]]


def test_scores_and_references_of_models_that_are_known(tiny: PixelModeling) -> None:
    side, test = tiny.setting.side, tiny.pixels["test"]
    counter = Counter(tiny.pixels["train"], side)
    found, references = tiny.evaluate(counter, "test", 0), tiny.references(0)
    assert list(found) == [metric.name for metric in tiny.info.metrics]
    assert found["bits_per_pixel"] == pytest.approx(references["left"], abs=1e-4)
    right = counter(test).argmax(-1) == test
    assert found["accuracy"] == pytest.approx(right.double().mean().item())
    assert tiny.loss(counter, {"pixels": test}).item() / math.log(2) == pytest.approx(
        references["left"], abs=1e-4
    )
    assert references["left-above"] < references["left"] < references["frequency"]
    both = neighbours(test, side)
    assert bits_per_symbol((both, test), (both, test), LEVELS) < references["left-above"]


def test_a_run_learns_and_shows_completions_of_the_upper_half(tiny: PixelModeling) -> None:
    torch.manual_seed(0)
    slots = Slots(CS, SoftmaxAttention, SoftmaxAttention)
    model = tiny.build(slots)
    trained = train(tiny, model, slots.candidates, 0, lambda **event: None)
    assert trained.validation["bits_per_pixel"] < 0.8 * math.log2(LEVELS)
    with torch.no_grad():
        scores = tiny.evaluate(model.eval(), "test", 0)
        assert scores["bits_per_pixel"] < tiny.references(0)["left"]
        (picture,) = tiny.artifacts(model, 0)
    assert picture.content.startswith(b"\x89PNG")
