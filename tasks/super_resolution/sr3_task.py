"""The task ``super-resolution-sr3``: CAB's, with the diffusion U-Net SR3.

Convolutions reach across a small picture by themselves, so whether attention matters here is for
the controls to say. CAB's own numbers are not clean either: its vanilla attention had slots at 16,
32 and 64 pixels only, the others also at 128. Here every candidate has the same slots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Metric, Pattern, Recipe, Scale, Slots, TaskInfo, register_task
from tasks.super_resolution.diffusion import Bounds, Diffusion
from tasks.super_resolution.image_task import ImageTask
from tasks.super_resolution.picture_sets import ALL, Sizes
from tasks.super_resolution.unet import UNet, UNetSizes


@dataclass(frozen=True)
class Setting:
    """Pictures, backbone, sampling and recipe of one scale."""

    sizes: Sizes
    network: UNetSizes
    residual_scale: float
    """What is diffused is the difference to the enlarged picture, divided by this, as in SRDiff
    (Li et al. 2022): a short training does not get the colours of whole pictures right. 0: the
    picture itself, as in SR3"""
    velocity: bool
    """Whether the network predicts the velocity, level * noise - sqrt(1 - level^2) * picture
    (Salimans and Ho 2022), of which an error counts alike at all levels, or the noise, as in SR3:
    then what little noise says of the picture at low levels takes long to learn"""
    sampling_steps: int
    stochastic: bool
    """See `Diffusion.sample`"""
    recipe: Recipe


SETTINGS = {
    Scale.TINY: Setting(
        Sizes(low=8, high=16, counts={"train": 256, "validation": 16, "test": 16}),
        UNetSizes(
            side=16,
            channels=16,
            multipliers=(1, 2),
            blocks=1,
            attended=(8, 16),
            heads=2,
            groups=8,
            dropout=0.0,
        ),
        residual_scale=0.2,
        velocity=True,
        sampling_steps=4,
        stochastic=False,
        recipe=Recipe(
            steps=60,
            batch_size=8,
            learning_rate=2e-3,
            betas=(0.9, 0.999),
            averaging=0.95,
            evaluations=1,
        ),
    ),
    Scale.SMALL: Setting(
        Sizes(low=8, high=32, counts={"train": 2000, "validation": 27, "test": 96}),
        UNetSizes(
            side=32,
            channels=16,
            multipliers=(1, 2, 2),
            blocks=1,
            attended=(8, 16),
            heads=4,
            groups=8,
            dropout=0.0,
        ),
        residual_scale=0.2,
        velocity=True,
        sampling_steps=8,
        stochastic=False,
        recipe=Recipe(
            steps=300,
            batch_size=8,
            learning_rate=2e-3,
            betas=(0.9, 0.999),
            averaging=0.99,
            evaluations=2,
        ),
    ),
    Scale.BASE: Setting(
        Sizes(low=16, high=64, counts={"train": 20_000, "validation": 54, "test": 96}),
        UNetSizes(
            side=64,
            channels=64,
            multipliers=(1, 2, 4),
            blocks=2,
            attended=(16, 32),
            heads=4,
            groups=32,
            dropout=0.1,
        ),
        residual_scale=0.2,
        velocity=True,
        sampling_steps=50,
        stochastic=False,
        recipe=Recipe(
            steps=8000,
            batch_size=32,
            learning_rate=2e-4,
            warmup_steps=500,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            precision="bfloat16",
            averaging=0.999,
            evaluations=4,
        ),
    ),
    Scale.PAPER: Setting(
        Sizes(low=16, high=128, counts={"train": ALL, "validation": 50, "test": 100}),
        UNetSizes(
            side=128,
            channels=64,
            multipliers=(1, 2, 4, 8, 8),
            blocks=2,
            attended=(16, 32, 64, 128),
            heads=1,
            groups=32,
            dropout=0.2,
        ),
        residual_scale=0.0,
        velocity=False,
        sampling_steps=2000,
        stochastic=True,
        recipe=Recipe(
            steps=1_000_000,
            batch_size=4,
            learning_rate=1e-4,
            warmup_steps=0,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            gradient_clip=math.inf,
            schedule="constant",
            averaging=0.9999,
            evaluations=10,
        ),
    ),
}


@register_task(
    TaskInfo(
        id="super-resolution-sr3",
        title="Super-resolution with SR3",
        description="Crops of photographs, 32 pixels a side from 8 (at scale base 64 from 16; at "
        "paper 128 from 16, for which the crops themselves are enlarged: it is meant "
        "for the original data), by CAB's backbone: a U-Net that removes noise step "
        "by step, given the bicubic enlargement. The photographs are split between "
        "training, validation and test.",
        backbones={Pattern.NONCAUSAL_SELF: "sr3"},
        metrics=(
            Metric(
                "psnr",
                "dB",
                higher_is_better=True,
                help="Peak signal-to-noise ratio of 8-bit RGB pictures, mean over pictures; one "
                "sample each, from noise that the seed fixes.",
            ),
            Metric(
                "ssim",
                "1",
                higher_is_better=True,
                help="Structural similarity of 8-bit RGB pictures: Gaussian windows of 11 pixels, "
                "sigma 1.5, mean over channels and pictures.",
            ),
            Metric(
                "psnr_gain",
                "dB",
                higher_is_better=True,
                help="psnr less that of the bicubic enlargement which the model is given; of "
                "samples it may well be negative, for they do not aim at the mean.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="photographs",
        data_dir="ffhq/ (training; 50 of them, 16 at scale tiny, 27 at small and 54 at base, "
        "become the validation split by the SHA-256 of their names) and celebahq/ (test: the first "
        "100 by name, 16 at tiny, 96 at small and base): pictures (.png, .jpg, .jpeg, .webp) of at "
        "least 128 pixels a side (16 at tiny, 32 at small, 64 at base), in folders of their own "
        "such as 00000/ or not. They are centre-cropped to squares and resized. 256 are trained on "
        "at tiny, 2,000 at small, 20,000 at base",
        differences="every candidate has slots at 16, 32, 64 and 128 pixels and in the middle, "
        "while CAB's vanilla attention had none at 128; averaged weights instead of the mean score "
        "of the last five checkpoints; photographs of all kinds, not faces; below scale paper the "
        "difference to the enlarged picture is diffused, the network predicts velocities, and "
        "sampling is deterministic in few steps (8 at small, 50 at base)",
        retired={
            Pattern.NONCAUSAL_SELF: "the convolutions of the U-Net do what attention does: psnr of "
            "softmax 22.36 ± 0.23, of none 22.38 ± 0.20, a gap of -0.2 spreads at scale small, "
            "three seeds on a CPU. The task super-resolution measures self attention on these data",
        },
        paper="Saharia et al., Image Super-Resolution via Iterative Refinement",
        url="https://arxiv.org/abs/2104.07636",
    )
)
class SuperResolutionSR3(ImageTask):
    """Pictures enlarged by diffusion."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.diffusion = Diffusion()

    @classmethod
    def sizes_at(cls, scale: Scale) -> Sizes:
        """See `ImageTask.sizes_at`."""
        return SETTINGS[scale].sizes

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def length(self) -> tuple[int, int]:
        """Pixels of the largest feature map that attends."""
        return self.setting.network.longest, self.setting.network.longest

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        return UNet(slots, self.setting.network)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """See `ImageTask.training_batch`; with ``noise`` and its ``level`` for every picture."""
        batch = super().training_batch(generator)
        noise = torch.randn(batch["wanted"].shape, generator=generator)
        level = self.diffusion.draw_levels(len(noise), generator)
        return {**batch, "noise": noise, "level": level}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean absolute error of the predicted noise, or velocity."""
        clean = self._to_diffused(batch["wanted"], batch["given"])
        level, noise = batch["level"], batch["noise"]
        noisy = self.diffusion.mixed(clean, noise, level)
        wanted = self.diffusion.velocity(clean, noise, level) if self.setting.velocity else noise
        return F.l1_loss(model(batch["given"], noisy, level), wanted)

    def restore(self, model: nn.Module, given: Tensor, generator: torch.Generator) -> Tensor:
        """See `ImageTask.restore`; one sample a picture."""

        def predict_noise(noisy: Tensor, level: Tensor) -> Tensor:
            predicted = model(given, noisy, level).float()
            if self.setting.velocity:
                return self.diffusion.noise_of_velocity(noisy, predicted, level)
            return predicted

        white = torch.ones_like(given)
        bounds = Bounds(self._to_diffused(-white, given), self._to_diffused(white, given))
        diffused = self.diffusion.sample(
            predict_noise,
            bounds,
            generator,
            steps=self.setting.sampling_steps,
            stochastic=self.setting.stochastic,
        )
        scale = self.setting.residual_scale
        return given + scale * diffused if scale else diffused

    def _to_diffused(self, pictures: Tensor, given: Tensor) -> Tensor:
        scale = self.setting.residual_scale
        return (pictures - given) / scale if scale else pictures
