"""The task ``upsampling``: colours at continuous positions of a small picture.

Photographs of 10 x 10 pixels at scale small; asked for are pixels of the same photograph at 1.6 to
4 times the size in training, and at 2, 2.5, 3, 4 and 6 times in tests. Of these 2.5 and 3 lie
between the factors trained on and 6 beyond them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
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
from tasks.evaluation import answers
from tasks.upsampling.interpolation import bicubic, bilinear, inverse_distance
from tasks.upsampling.model import PixelReader
from tasks.upsampling.positions import ask, pixel_centres, pyramid

TRAINED = (1.6, 1.8, 2.0, 2.4, 2.8, 3.2, 3.6, 4.0)
"""Scale factors of training"""

FACTORS = {"x2": 2.0, "x2_5": 2.5, "x3": 3.0, "x4": 4.0, "x6": 6.0}
"""Of evaluation; the last is not in the headline"""

OUTSIDE = "x6"


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    low: int
    """Side of the small picture"""
    queries: int
    """Positions asked for at once"""
    dim: int
    heads: int
    layers: int
    pictures: dict[str, int]
    """Most crops per split, spread evenly over the photographs"""


SETTINGS = {
    Scale.TINY: Setting(
        5, 64, 32, 4, layers=1, pictures={"train": 128, "validation": 32, "test": 64}
    ),
    Scale.SMALL: Setting(
        10, 128, 64, 4, layers=2, pictures={"train": 700, "validation": 64, "test": 200}
    ),
    Scale.BASE: Setting(
        10, 256, 256, 8, layers=6, pictures={"train": 700, "validation": 90, "test": 200}
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=8, learning_rate=4e-3),
    Scale.SMALL: Recipe(steps=650, batch_size=16, learning_rate=3e-3),
    Scale.BASE: Recipe(
        steps=8000, batch_size=64, learning_rate=5e-4, evaluations=8, precision="bfloat16"
    ),
}

PICTURES_AT_ONCE = 64
SHOWN = 4


@register_task(
    TaskInfo(
        id="upsampling",
        title="Upsampling at continuous positions",
        description="The colours of a photograph between its pixels: 10 x 10 pixels are the "
        "source, pixels of the same photograph at 2 to 6 times the size are the queries.",
        backbones={Pattern.NONCAUSAL_CROSS: "pixel-reader"},
        metrics=(
            Metric(
                "mse",
                "levels^2",
                higher_is_better=False,
                help="Squared error of colours of 0 to 255, mean over the factors 2, 2.5, 3, 4.",
            ),
            Metric(
                "psnr",
                "dB",
                higher_is_better=True,
                help="Peak signal-to-noise ratio of the mean squared error above.",
                headline=False,
            ),
            *(
                Metric(
                    f"psnr_{name}",
                    "dB",
                    higher_is_better=True,
                    help=f"At a factor of {factor}, {place}.",
                    headline=False,
                )
                for name, factor, place in (
                    ("x2", 2, "trained on"),
                    ("x2_5", 2.5, "between those trained on"),
                    ("x3", 3, "between those trained on"),
                    ("x4", 4, "the largest trained on"),
                    ("x6", 6, "beyond those trained on"),
                )
            ),
        ),
        references=(
            Reference(
                "inverse-distance",
                "mse",
                "The four nearest pixels, weighted by their inverse distance (SymPoint).",
            ),
            Reference("bilinear", "mse", "Bilinear interpolation."),
            Reference("bicubic", "mse", "Bicubic interpolation."),
            *(
                Reference(f"bicubic-{name}", f"psnr_{metric}", "Bicubic interpolation.")
                for name, metric in (
                    ("x2", "x2"),
                    ("x2-5", "x2_5"),
                    ("x3", "x3"),
                    ("x4", "x4"),
                    ("x6", "x6"),
                )
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="photographs",
        paper="Chen et al., Learning Continuous Image Representation with Local Implicit Image "
        "Function (the setting); Liu et al., Symbol as Points (the interpolation)",
        url="https://arxiv.org/abs/2401.10556",
        probe=True,
    )
)
class Upsampling(Task):
    """Continuous upsampling of photographs."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.sides = {name: self._side(factor) for name, factor in FACTORS.items()}
        self.trained_sides = tuple(self._side(factor) for factor in TRAINED)
        self.pictures = {
            split: pyramid(
                _evenly(photographs(split), most),
                self.setting.low,
                self.trained_sides if split == "train" else tuple(self.sides.values()),
            )
            for split, most in self.setting.pictures.items()
        }

    def _side(self, factor: float) -> int:
        return round(factor * self.setting.low)

    @property
    def data_hash(self) -> str:
        """Hash of the photographs and of what is asked of them."""
        setting = self.setting
        settings = (
            TRAINED,
            FACTORS,
            setting.low,
            setting.queries,
            sorted(setting.pictures.items()),
        )
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Queries and pixels."""
        return self.setting.queries, self.setting.low**2

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return PixelReader(
            slots,
            low=setting.low,
            queries=setting.queries,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            expansion=2,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random pictures, all at one of the trained factors."""
        sides = self.trained_sides
        side = sides[int(torch.randint(len(sides), (), generator=generator))]
        train = self.pictures["train"]
        rows = torch.randint(len(train[side]), (self.recipe.batch_size,), generator=generator)
        return self._ask("train", rows, side, generator)

    def _ask(self, split: str, rows: Tensor, side: int, generator: torch.Generator) -> Batch:
        count = min(self.setting.queries, side * side)
        return ask(self.pictures[split], rows, self.setting.low, side, count, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of colours in 0..1, times 100 to be of the order of one."""
        return 100 * F.mse_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> dict[str, list[Batch]]:
        """What a split is evaluated on, by factor; the seed draws the positions asked for."""
        generator = seeds.evaluation(seed, split)
        rows = torch.arange(len(self.pictures[split][self.setting.low]))
        return {
            name: [self._ask(split, part, side, generator) for part in rows.split(PICTURES_AT_ONCE)]
            for name, side in self.sides.items()
        }

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`, of colours cut to 0..1."""
        return scores(lambda batch: _colours(model, batch), self.questions(split, seed))

    def references(self, seed: int) -> dict[str, float]:
        """Errors of interpolation at the same test positions."""
        asked = self.questions("test", seed)
        cubic = scores(bicubic, asked)
        return {
            "inverse-distance": scores(inverse_distance, asked)["mse"],
            "bilinear": scores(bilinear, asked)["mse"],
            "bicubic": cubic["mse"],
            **{f"bicubic-{name.replace('_', '-')}": cubic[f"psnr_{name}"] for name in FACTORS},
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Whole pictures at four times the size: pixels, bicubic, model, truth."""
        low, side = self.setting.low, self.sides["x4"]
        test = self.pictures["test"]
        rows = torch.arange(SHOWN) * len(test[low]) // SHOWN
        batch = {
            "pixels": test[low][rows].flatten(2).transpose(1, 2).float() / 255,
            "positions": pixel_centres(side, low).expand(SHOWN, -1, -1),
            "cell": torch.full((SHOWN, side * side, 1), low / side),
        }
        # In parts of the length trained with, spread over the picture.
        count = self.setting.queries
        painted = torch.empty(SHOWN, side * side, 3)
        for start in range(-(-side * side // count)):
            part = torch.arange(start, side * side, -(-side * side // count))
            asked = {
                **batch,
                "positions": batch["positions"][:, part],
                "cell": batch["cell"][:, part],
            }
            painted[:, part] = _colours(model, asked)
        nearest = (
            test[low][rows].repeat_interleave(side // low, 2).repeat_interleave(side // low, 3)
        )
        tiles = [
            [
                _tile(nearest[i].flatten(1).T / 255, side),
                _tile(smooth, side),
                _tile(mine, side),
                _tile(test[side][rows[i]].flatten(1).T / 255, side),
            ]
            for i, (smooth, mine) in enumerate(zip(bicubic(batch), painted, strict=True))
        ]
        return [
            pictures.image(
                "four-times",
                "Test pictures at four times the size: their pixels, bicubic, model, truth.",
                pictures.grid(tiles),
                zoom=2,
            )
        ]


def scores(
    predict: Callable[[Batch], Tensor], questions: Mapping[str, list[Batch]]
) -> dict[str, float]:
    """Every metric of a predictor of (B, M, 3) colours in 0..1."""
    errors = {
        name: torch.cat([(predict(b) - b["target"]).double().square().flatten() for b in batches])
        .mean()
        .item()
        for name, batches in questions.items()
    }
    inside = [error for name, error in errors.items() if name != OUTSIDE]
    mean = sum(inside) / len(inside)
    ratios = {f"psnr_{name}": _psnr(error) for name, error in errors.items()}
    return {"mse": 255**2 * mean, "psnr": _psnr(mean), **ratios}


def _psnr(error: float) -> float:
    return -10 * math.log10(error)


def _colours(model: nn.Module, batch: Batch) -> Tensor:
    return answers(model, batch).clamp(0, 1)


def _evenly(crops: Tensor, most: int) -> Tensor:
    kept = min(most, len(crops))
    return crops[torch.arange(kept) * len(crops) // kept]


def _tile(colours: Tensor, side: int) -> NDArray[np.uint8]:
    return (255 * colours).round().to(torch.uint8).unflatten(0, (side, side)).numpy()
