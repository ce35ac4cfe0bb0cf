"""Super-resolution: resampling and scores against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.data.images import photographs
from tasks.super_resolution.fidelity import psnr, ssim
from tasks.super_resolution.resampling import enlarged, resized, to_pictures, to_signal
from tests.tasks.super_resolution_cases import (
    noise_pictures,
)

# Resampling


@pytest.mark.parametrize("side", [8, 32, 128])
def test_resampling_is_pillows_bicubic(side: int) -> None:
    """On float channels, which Pillow does not round between its two passes."""
    crops = photographs("validation")[::9]
    channels = [Image.fromarray(x.numpy()) for x in crops.flatten(0, 1).float()]
    by_pillow = np.stack([np.asarray(x.resize((side, side), 3)) for x in channels])
    expected = torch.from_numpy(by_pillow).unflatten(0, (-1, 3)).clamp(0, 255)
    assert (resized(crops, side).float() - expected).abs().max() < 0.501


def test_enlarging_keeps_what_has_no_detail() -> None:
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(enlarged(flat, 8), flat)
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    left = enlarged(stripes, 8).int()
    assert left.max() - left.min() < 0.1 * 255


def test_signals_round_and_cut() -> None:
    pictures = noise_pictures(2, 3, 8, 8)
    assert torch.equal(to_pictures(to_signal(pictures)), pictures)
    assert to_pictures(torch.tensor([-7.0, -1.0, 0.0, 1.0, 9.0])).tolist() == [0, 0, 128, 255, 255]


# PSNR and SSIM


def test_psnr_of_known_errors() -> None:
    """An error of d everywhere: 20 log10(255 / d); of one channel alone: a third of its square."""
    truth = torch.full((3, 3, 16, 16), 100, dtype=torch.uint8)
    output = truth.clone()
    output[0] += 5
    output[1, 2] += 5
    values = psnr(output, truth)
    assert values[0].item() == pytest.approx(20 * math.log10(255 / 5))
    assert values[1].item() == pytest.approx(20 * math.log10(255 / 5) + 10 * math.log10(3))
    assert values[2].item() == math.inf


def windowed(values: np.ndarray) -> np.ndarray:
    """Means under a Gaussian window of 11 x 11, sigma 1.5, wherever it fits."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    views = np.lib.stride_tricks.sliding_window_view(values, (11, 11))
    return np.einsum("ijkl,kl->ij", views, window)


def test_ssim_is_its_definition() -> None:
    """Wang et al. 2004, equation 13, a channel at a time."""
    truth, noise = noise_pictures(2, 3, 20, 24), noise_pictures(2, 3, 20, 24, seed=1)
    output = (0.7 * truth + 0.3 * noise).to(torch.uint8)
    for one, other, value in zip(output, truth, ssim(output, truth), strict=True):
        channels = []
        for x, y in zip(one.double().numpy(), other.double().numpy(), strict=True):
            mean_x, mean_y = windowed(x), windowed(y)
            var_x, var_y = windowed(x * x) - mean_x**2, windowed(y * y) - mean_y**2
            both = windowed(x * y) - mean_x * mean_y
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            likeness = (2 * mean_x * mean_y + c1) * (2 * both + c2)
            channels.append(likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
        assert value.item() == pytest.approx(np.mean(channels), abs=1e-9)
    assert ssim(truth, truth).tolist() == pytest.approx([1, 1])
