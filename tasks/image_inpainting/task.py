"""The task ``image-inpainting``: hidden patches of photographs from those left visible.

Photographs of 32 x 32 pixels in patches of 4 x 4 at scale small, of which 38 of 64 are hidden,
drawn anew for every picture and step. Hidden patches are queries that know their place alone and do
not see each other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    Task,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.data.embedded import dataset
from tasks.data.images import photographs
from tasks.evaluation import answers, parts
from tasks.image_inpainting.interpolation import harmonic, inverse_distance, visible_mean
from tasks.image_inpainting.model import PatchReader
from tasks.problems.hidden import draw_hidden, filled, hide
from tasks.super_resolution.resampling import resized

HIDDEN_SHARE = 0.6
"""Of the patches"""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    side: int
    """Of a picture, in pixels"""
    patch: int
    """Side of a patch, in pixels"""
    dim: int
    heads: int
    layers: int

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.side // self.patch

    @property
    def hidden(self) -> int:
        """Patches hidden of a picture."""
        return round(HIDDEN_SHARE * self.grid**2)


SETTINGS = {
    Scale.TINY: Setting(side=16, patch=2, dim=32, heads=4, layers=1),
    Scale.SMALL: Setting(side=32, patch=4, dim=64, heads=4, layers=2),
    Scale.BASE: Setting(side=64, patch=4, dim=256, heads=8, layers=6),
}

RECIPES = {
    Scale.TINY: Recipe(steps=150, batch_size=16, learning_rate=5e-3),
    Scale.SMALL: Recipe(steps=1000, batch_size=16, learning_rate=3e-3),
    Scale.BASE: Recipe(
        steps=8000, batch_size=64, learning_rate=5e-4, evaluations=8, precision="bfloat16"
    ),
}

PICTURES_AT_ONCE = 64
SHOWN = 5


@register_task(
    TaskInfo(
        id="image-inpainting",
        title="Image inpainting",
        description="Hidden patches of photographs from the visible ones: 38 of the 64 patches of "
        "4 x 4 pixels are hidden (scale small), at places drawn for every picture; photographs "
        "are split between training, validation and test. The control none answers the mean "
        "colour of what is visible.",
        backbones={Pattern.NONCAUSAL_CROSS: "patch-reader"},
        metrics=(
            Metric(
                "mse",
                "levels^2",
                higher_is_better=False,
                help="Squared error of the hidden pixels' colours of 0 to 255.",
            ),
            Metric(
                "psnr",
                "dB",
                higher_is_better=True,
                help="Peak signal-to-noise ratio of the mean squared error; the same information.",
                headline=False,
            ),
            Metric(
                "mae",
                "levels",
                higher_is_better=False,
                help="Absolute error of the hidden pixels' colours.",
                headline=False,
            ),
        ),
        references=(
            Reference("visible-mean", "mse", "The mean colour of the visible pixels."),
            Reference(
                "inverse-distance",
                "mse",
                "The mean colours of the four nearest visible patches, weighted by their inverse "
                "distance.",
            ),
            Reference(
                "harmonic",
                "mse",
                "Laplace's equation in the holes: every hidden pixel is the mean of its "
                "neighbours.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="photographs",
    )
)
class ImageInpainting(Task):
    """Photographs with holes."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.patches = {
            split: in_patches(resized(photographs(split), self.setting.side), self.setting.patch)
            for split in ("train", "validation", "test")
        }
        """(N, P, C) uint8 by split"""

    @property
    def data_hash(self) -> str:
        """Hash of the photographs and of how they are cut and hidden."""
        setting = self.setting
        settings = (setting.side, setting.patch, setting.hidden)
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Hidden and visible patches."""
        return self.setting.hidden, self.setting.grid**2 - self.setting.hidden

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return PatchReader(
            slots,
            grid=setting.grid,
            patch=setting.patch,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random pictures under fresh holes."""
        train = self.patches["train"]
        rows = torch.randint(len(train), (self.recipe.batch_size,), generator=generator)
        return self._hide(train[rows], generator)

    def _hide(self, patches: Tensor, generator: torch.Generator) -> Batch:
        count = patches.shape[1]
        hidden = draw_hidden(len(patches), count, self.setting.hidden, generator)
        return hide(patches.float() / 255, hidden)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of colours in 0..1, times 100 to be of the order of one."""
        return 100 * F.mse_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> list[Batch]:
        """Every picture of a split once; the seed draws the holes."""
        whole = self._hide(self.patches[split], seeds.evaluation(seed, split))
        return list(parts(whole, PICTURES_AT_ONCE))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`, of colours cut to 0..1."""
        return scores(lambda batch: _colours(model, batch), self.questions(split, seed))

    def references(self, seed: int) -> dict[str, float]:
        """Errors of inpainting without training, in the same holes."""
        asked = self.questions("test", seed)
        return {
            "visible-mean": scores(visible_mean, asked)["mse"],
            "inverse-distance": scores(inverse_distance, asked)["mse"],
            "harmonic": scores(harmonic, asked)["mse"],
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test pictures with their holes, filled by diffusion, by the model, and whole."""
        test = self.patches["test"]
        rows = torch.arange(SHOWN) * len(test) // SHOWN
        batch = self._hide(test[rows], seeds.evaluation(seed, "test", "shown"))
        grey = torch.full_like(batch["target"], 0.5)
        versions = (grey, harmonic(batch).clamp(0, 1), _colours(model, batch), batch["target"])
        columns = [self._tiles(filled(batch, version)) for version in versions]
        tiles = [list(row) for row in zip(*columns, strict=True)]
        return [
            pictures.image(
                "filled-in",
                "Test pictures: what is visible (the holes grey), the holes filled by diffusion "
                "(Laplace's equation), by the model, the truth.",
                pictures.grid(tiles),
                zoom=3,
            )
        ]

    def _tiles(self, patches: Tensor) -> list[NDArray[np.uint8]]:
        """(S, S, 3) pictures of patches (B, P, C) in 0..1."""
        grid = self.setting.grid
        planes = patches.transpose(1, 2).unflatten(2, (grid, grid))
        colours = F.pixel_shuffle(planes, self.setting.patch).permute(0, 2, 3, 1)
        return list((255 * colours).round().to(torch.uint8).numpy())


def in_patches(images: Tensor, patch: int) -> Tensor:
    """(N, 3, S, S) pictures as (N, P, 3 patch^2) patches in the order of rows, channels first."""
    return F.pixel_unshuffle(images, patch).flatten(2).transpose(1, 2).contiguous()


def scores(predict: Callable[[Batch], Tensor], questions: Sequence[Batch]) -> dict[str, float]:
    """Every metric of a predictor of (B, M, C) patches in 0..1."""
    errors = torch.cat([(predict(b) - b["target"]).double().flatten() for b in questions])
    mse = errors.square().mean().item()
    return {
        "mse": 255**2 * mse,
        "psnr": -10 * math.log10(mse),
        "mae": 255 * errors.abs().mean().item(),
    }


def _colours(model: nn.Module, batch: Batch) -> Tensor:
    return answers(model, batch).clamp(0, 1)
