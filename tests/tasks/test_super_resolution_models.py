"""Super-resolution: diffusion, and the sizes of scales base and paper."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attentions.softmax import SoftmaxAttention
from cab import Scale, Slots
from tasks.super_resolution.diffusion import Bounds, Diffusion
from tasks.super_resolution.image_task import ImageTask
from tasks.super_resolution.patch_transformer import PatchTransformer
from tasks.super_resolution.sr3_task import SETTINGS as SR3_SETTINGS
from tasks.super_resolution.sr3_task import SuperResolutionSR3
from tasks.super_resolution.task import SETTINGS
from tasks.super_resolution.unet import UNet, UNetSizes
from tests.tasks.super_resolution_cases import (
    CLASSES,
    NS,
    build,
    count,
    draw,
)

# Diffusion


def oracle(clean: Tensor) -> object:
    """The noise that takes ``clean`` to the noisy picture."""

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        level = level[:, None, None, None]
        return (noisy - level * clean) / (1 - level.square()).sqrt()

    return predict


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_sampling_with_the_true_noise_gives_the_picture(steps: int, stochastic: bool) -> None:
    diffusion = Diffusion(times=50, last=0.2)
    clean = torch.rand(2, 3, 4, 4) * 2 - 1
    bounds = Bounds(-torch.ones_like(clean), torch.ones_like(clean))
    generator = torch.Generator().manual_seed(0)
    sampled = diffusion.sample(
        oracle(clean),  # type: ignore[arg-type]
        bounds,
        generator,
        steps=steps,
        stochastic=stochastic,
    )
    assert torch.allclose(sampled, clean, atol=1e-4)


def test_stochastic_sampling_is_the_ancestral_one() -> None:
    """Mean and spread of a step are those of the posterior (Ho et al. 2020, equation 7)."""
    diffusion = Diffusion(times=10, last=0.3)
    clean = torch.full((20_000, 1, 1, 1), 0.5)
    bounds = Bounds(-torch.ones_like(clean), torch.ones_like(clean))
    seen: list[tuple[Tensor, float]] = []
    inner = oracle(clean)

    def predict(noisy: Tensor, level: Tensor) -> Tensor:
        seen.append((noisy, level[0].item()))
        return inner(noisy, level)  # type: ignore[operator]

    generator = torch.Generator().manual_seed(0)
    diffusion.sample(predict, bounds, generator, steps=10, stochastic=True)
    betas = np.linspace(1e-6, 0.3, 10)
    gammas = np.concatenate([[1], np.cumprod(1 - betas)])
    (now, level), (after, _) = seen[2], seen[3]
    t = 8
    assert level == pytest.approx(math.sqrt(gammas[t]))
    beta, gamma, before = betas[t - 1], gammas[t], gammas[t - 1]
    mean = (
        math.sqrt(before) * beta / (1 - gamma) * clean
        + math.sqrt(1 - beta) * (1 - before) / (1 - gamma) * now
    )
    error = after - mean
    assert error.mean().item() == pytest.approx(0, abs=0.01)
    spread = math.sqrt((1 - before) / (1 - gamma) * beta)
    assert error.std().item() == pytest.approx(spread, rel=0.03)


def test_levels_lie_within_the_schedule() -> None:
    diffusion = Diffusion()
    levels = diffusion.draw_levels(4096, torch.Generator().manual_seed(0))
    assert levels.max() <= 1
    assert levels.min() >= diffusion.levels[-1]
    # Times are uniform: half of the levels are above that of the middle.
    assert (levels > diffusion.levels[1000]).double().mean().item() == pytest.approx(0.5, abs=0.03)
    noisy = Diffusion.mixed(torch.ones(2, 3, 1, 1), torch.ones(2, 3, 1, 1), torch.tensor([1, 0.6]))
    assert noisy[:, 0, 0, 0].tolist() == pytest.approx([1.0, 0.6 + 0.8])


def test_samples_follow_the_seed() -> None:
    task = SuperResolutionSR3(NS, Scale.TINY)
    model = build(task, SoftmaxAttention).eval()
    with torch.no_grad():
        first, again, other = (task.evaluate(model, "test", seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("velocity", [False, True])
@pytest.mark.parametrize("residual_scale", [0.0, 0.2])
def test_what_is_diffused_is_undone(residual_scale: float, velocity: bool) -> None:
    """With the true noise or velocity the picture comes back, whole or as a residual."""
    task = SuperResolutionSR3(NS, Scale.TINY)
    task.setting = replace(task.setting, residual_scale=residual_scale, velocity=velocity)
    batch = draw(task, 0)
    clean = batch["wanted"]
    if residual_scale:
        clean = (clean - batch["given"]) / residual_scale

    class Knowing(nn.Module):
        def forward(self, given: Tensor, noisy: Tensor, level: Tensor) -> Tensor:
            level = level[:, None, None, None]
            spread = (1 - level.square()).sqrt()
            noise = (noisy - level * clean) / spread
            return level * noise - spread * clean if velocity else noise

    restored = task.restore(Knowing(), batch["given"], torch.Generator())
    assert torch.allclose(restored, batch["wanted"], atol=1e-3)
    assert task.loss(Knowing(), batch).item() < 2e-3


# Published geometry


def published(attended: tuple[int, ...]) -> UNetSizes:
    return replace(SR3_SETTINGS[Scale.PAPER].network, attended=attended)


def test_sr3_has_the_published_number_of_parameters() -> None:
    """97,807,491: what its usual implementation reports for 16 to 128 pixels, attention at 16."""
    with torch.device("meta"):
        slots = Slots(NS, SoftmaxAttention, SoftmaxAttention)
        original = UNet(slots, published((16,)))
        model = UNet(slots, published((16, 32, 64, 128)))
    assert count(original) == 97_807_491
    # A slot of width c: norm, three projections without and one with bias. Five more per level.
    added = sum(5 * (2 * c + 3 * c * c + c * c + c) for c in (64, 128, 256))
    assert count(model) == 97_807_491 + added
    assert SR3_SETTINGS[Scale.PAPER].network == published((16, 32, 64, 128))


def test_patch_transformer_at_scale_paper() -> None:
    """DeiT-S's 21.3 million parameters in the layers, and 16,384 tokens of three numbers."""
    setting, width = SETTINGS[Scale.PAPER], 384
    with torch.device("meta"):
        model = PatchTransformer(
            Slots(NS, SoftmaxAttention, SoftmaxAttention),
            side=128,
            patch=setting.patch,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            expansion=setting.expansion,
        )
    attention = 4 * (width * width + width)
    feed_forward = 2 * 4 * width * width + 4 * width + width
    layers = 12 * (attention + feed_forward + 4 * width)
    ends = (3 * width + width) + 16_384 * width + 2 * width + (3 * width + 3)
    assert layers == 21_293_568
    assert count(model) == layers + ends


@pytest.mark.parametrize("cls", CLASSES)
def test_paper_scale_has_cabs_lengths_and_recipe(cls: type[ImageTask]) -> None:
    task = cls(NS, Scale.PAPER)
    assert task.length() == (16_384, 16_384)
    assert (task.sizes.low, task.sizes.high) == (16, 128)
    assert len(task.pictures["test"]) == 100
    recipe = task.recipe
    assert (recipe.steps, recipe.batch_size, recipe.learning_rate) == (1_000_000, 4, 1e-4)
    batch = draw(task, 0)
    assert batch["given"].shape == (4, 3, 128, 128)


@pytest.mark.parametrize("cls", CLASSES)
def test_base_scale_takes_a_step(cls: type[ImageTask]) -> None:
    task = cls(NS, Scale.BASE)
    batch = {name: tensor[:1] for name, tensor in draw(task, 0).items()}
    model = build(task, SoftmaxAttention).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = task.loss(model, batch)
    before.backward()
    optimizer.step()
    assert task.loss(model, batch).item() < before.item()
