"""Super-resolution pixel by pixel: levels, places, baselines."""

from __future__ import annotations

import math

import pytest
import torch

from cab import Pattern, Scale, seeds
from tasks.autoregressive_super_resolution import levels
from tasks.autoregressive_super_resolution.baselines import Counts, bicubic, repeated
from tasks.autoregressive_super_resolution.task import AutoregressiveSuperResolution
from tasks.data.images import photographs
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import START

CC = Pattern.CAUSAL_CROSS


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    return levels.random_windows(photographs("test"), 24, 40, seeds.generator(0, "data"))


def test_windows_are_cut_from_the_photographs() -> None:
    crops = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    found = levels.random_windows(crops, 4, 300, seeds.generator(0, "data"))
    known = {
        tuple(crops[row, :, i : i + 4, j : j + 4].flatten().tolist())
        for row in range(2)
        for i in range(5)
        for j in range(5)
    }
    assert {tuple(window.flatten().tolist()) for window in found} == known


def test_coarse_pixels_are_the_means_of_the_fine_ones(windows) -> None:
    fine, coarse = levels.fine_grey(windows), levels.coarse_colour(windows)
    assert fine.shape == (40, 12, 12)
    assert coarse.shape == (40, 3, 6, 6)
    blocks = fine.unflatten(1, (6, 2)).unflatten(3, (6, 2)).mean((2, 4))
    torch.testing.assert_close(blocks, coarse.mean(1))
    by_hand = windows[3, :, 2:4, 6:8].double().mean() / 255
    assert fine[3, 1, 3].item() == pytest.approx(by_hand.item())


def test_levels() -> None:
    grey = torch.linspace(0, 1, 1001)
    found = levels.to_levels(grey)
    assert found.unique().tolist() == list(range(16))
    assert (levels.to_grey(found) - grey).abs().max() <= 1 / 32 + 1e-6
    assert torch.equal(levels.to_levels(levels.to_grey(found)), found)


def test_batches(windows) -> None:
    batch = levels.as_batch(windows)
    assert batch["source"].shape == (40, 36, 3)
    assert batch["target"].shape == (40, 145)
    assert (batch["target"][:, 0] == START).all()
    fine = levels.to_levels(levels.fine_grey(windows))
    assert torch.equal(batch["target"][:, 1 + 12 * 5 + 7], FIRST_TOKEN + fine[:, 5, 7])
    coarse = levels.coarse_colour(windows)
    torch.testing.assert_close(batch["source"][:, 6 * 2 + 3] / 4 + 0.5, coarse[:, :, 2, 3])


def test_the_nearest_coarse_place_is_that_of_the_pixel_around() -> None:
    coarse, fine = levels.coarse_centres(24), levels.fine_centres(24)
    around = (fine // levels.RATIO) @ torch.tensor([6.0, 1.0])
    assert torch.equal(torch.cdist(fine, coarse).argmin(1).float(), around)
    code = levels.place_codes(torch.cat([coarse, fine]), 64, 30.0)
    assert code.shape == (36 + 144, 64)
    likeness = code[36:] @ code[:36].T
    assert torch.equal(likeness.argmax(1).float(), around)


def test_baselines_of_a_constant_and_of_photographs(windows) -> None:
    flat = torch.full((2, 3, 24, 24), 100, dtype=torch.uint8)
    for guess in (repeated, bicubic):
        torch.testing.assert_close(guess(flat), levels.fine_grey(flat))
    errors = [(guess(windows) - levels.fine_grey(windows)).square().mean()
              for guess in (bicubic, repeated)]  # fmt: skip
    assert errors[0] < errors[1]


def test_counts_are_a_distribution_that_learns_from_what_it_saw(windows) -> None:
    never = Counts(windows[:0])
    assert never.nll(windows) == pytest.approx(math.log(levels.LEVELS))
    assert never.nll(windows) > Counts(windows[20:]).nll(windows) > Counts(windows).nll(windows)


def test_photographs_of_the_splits_are_different() -> None:
    task = AutoregressiveSuperResolution(CC, Scale.TINY)
    seen = [{crop.numpy().tobytes() for crop in task.crops[s]} for s in task.crops]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
