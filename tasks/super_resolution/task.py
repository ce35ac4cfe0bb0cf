"""The task ``super-resolution``: what bicubic enlargement lost, predicted at once.

The backbone is chosen so that its slots matter. CAB's own, the diffusion U-Net SR3, whose
convolutions do without attention at small scales, is the task ``super-resolution-sr3``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Batch, Metric, Pattern, Recipe, Scale, Slots, TaskInfo, register_task
from tasks.super_resolution.image_task import ImageTask
from tasks.super_resolution.patch_transformer import RESIDUAL_SCALE, PatchTransformer
from tasks.super_resolution.picture_sets import ALL, Sizes


@dataclass(frozen=True)
class Setting:
    """Pictures, backbone and recipe of one scale."""

    sizes: Sizes
    patch: int
    dim: int
    heads: int
    layers: int
    expansion: int
    recipe: Recipe


SETTINGS = {
    Scale.TINY: Setting(
        Sizes(low=8, high=32, counts={"train": 256, "validation": 27, "test": 32}),
        patch=4,
        dim=32,
        heads=4,
        layers=2,
        expansion=2,
        recipe=Recipe(
            steps=200,
            batch_size=16,
            learning_rate=4e-3,
            betas=(0.9, 0.999),
            averaging=0.95,
            evaluations=2,
        ),
    ),
    Scale.SMALL: Setting(
        Sizes(low=8, high=32, counts={"train": 2000, "validation": 108, "test": 191}),
        patch=4,
        dim=64,
        heads=4,
        layers=4,
        expansion=2,
        recipe=Recipe(
            steps=600,
            batch_size=32,
            learning_rate=4e-3,
            betas=(0.9, 0.999),
            averaging=0.99,
            evaluations=3,
        ),
    ),
    Scale.BASE: Setting(
        Sizes(low=16, high=64, counts={"train": 20_000, "validation": 108, "test": 191}),
        patch=4,
        dim=192,
        heads=6,
        layers=8,
        expansion=4,
        recipe=Recipe(
            steps=6000,
            batch_size=64,
            learning_rate=1e-3,
            warmup_steps=500,
            betas=(0.9, 0.999),
            precision="bfloat16",
            averaging=0.999,
            evaluations=6,
        ),
    ),
    # DeiT-S's width, heads and depth on single pixels, at SR3's pictures, batch, rate and steps:
    # CAB's length of 16,384.
    Scale.PAPER: Setting(
        Sizes(low=16, high=128, counts={"train": ALL, "validation": 50, "test": 100}),
        patch=1,
        dim=384,
        heads=6,
        layers=12,
        expansion=4,
        recipe=Recipe(
            steps=1_000_000,
            batch_size=4,
            learning_rate=1e-4,
            warmup_steps=0,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            gradient_clip=math.inf,
            schedule="constant",
            precision="bfloat16",
            averaging=0.9999,
            evaluations=20,
        ),
    ),
}


@register_task(
    TaskInfo(
        id="super-resolution",
        title="Super-resolution",
        description="Crops of photographs, 32 pixels a side from 8 (at scale base 64 from 16; at "
        "paper 128 from 16, for which the crops themselves are enlarged: it is meant "
        "for the original data). A Transformer over patches predicts what bicubic "
        "enlargement lost; the photographs are split between training, validation "
        "and test. The control none enlarges every patch alone.",
        backbones={Pattern.NONCAUSAL_SELF: "patch-transformer"},
        metrics=(
            Metric(
                "psnr",
                "dB",
                higher_is_better=True,
                help="Peak signal-to-noise ratio of 8-bit RGB pictures, mean over pictures.",
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
                help="psnr less that of the bicubic enlargement which the model is given.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="photographs",
        data_dir="ffhq/ (training; 50 of them, 27 at scale tiny and 108 at small and base, "
        "become the validation split by the SHA-256 of their names) and celebahq/ (test: the first "
        "100 by name, 32 at tiny, 191 at small and base): pictures (.png, .jpg, .jpeg, .webp) of "
        "at least 128 pixels a side (32 at tiny and small, 64 at base), in folders of their own "
        "such as 00000/ or not. They are centre-cropped to squares and resized. 256 are trained on "
        "at tiny, 2,000 at small, 20,000 at base",
        differences="direct regression by a Transformer without convolutions, not SR3 (see "
        "super-resolution-sr3): in its U-Net convolutions can do what attention does; photographs "
        "of all kinds, not faces",
        paper="Dosovitskiy et al., An Image is Worth 16x16 Words: Transformers for Image "
        "Recognition at Scale",
        url="https://arxiv.org/abs/2010.11929",
    )
)
class SuperResolution(ImageTask):
    """Pictures enlarged by regression."""

    @classmethod
    def sizes_at(cls, scale: Scale) -> Sizes:
        """See `ImageTask.sizes_at`."""
        return SETTINGS[scale].sizes

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return SETTINGS[self.scale].recipe

    def length(self) -> tuple[int, int]:
        """Patches of a picture."""
        patches = (self.sizes.high // SETTINGS[self.scale].patch) ** 2
        return patches, patches

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = SETTINGS[self.scale]
        return PatchTransformer(
            slots,
            side=self.sizes.high,
            patch=setting.patch,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            expansion=setting.expansion,
        )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error, in units of the residual."""
        return F.mse_loss(model(batch["given"]), batch["wanted"]) / RESIDUAL_SCALE**2

    def restore(self, model: nn.Module, given: Tensor, generator: torch.Generator) -> Tensor:
        """See `ImageTask.restore`; nothing is drawn."""
        return model(given)
