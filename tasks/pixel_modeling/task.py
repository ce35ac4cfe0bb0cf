"""The task ``pixel-modeling``: the next pixel of a small photograph.

Autoregressive models of images predict pixels in raster order, each from all before it (PixelRNN,
van den Oord et al. 2016; Image Transformer, Parmar et al. 2018). Here they are grey and of 16
levels. The nearest pixels tell most, and they are not the latest ones: the pixel above stands a
whole row back, so that without attention only the one to the left is seen. What counting makes of
the pixels left and above is a reference: what is better uses more of the picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
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
from tasks.backbones.stream import LevelStream
from tasks.data.embedded import dataset
from tasks.data.images import photographs
from tasks.evaluation import beside, parts
from tasks.problems.context_counts import bits_per_symbol
from tasks.super_resolution.resampling import resized
from tasks.upsampling.model import position_code
from tasks.upsampling.positions import pixel_centres

GREY = (299, 587, 114)
"""Weights of red, green and blue (ITU-R BT.601), in thousandths: whole numbers, so that a grey on
the border of two levels is the same everywhere"""

LEVELS = 16

SPLITS = ("train", "validation", "test")

SHARPNESS = 1.0
"""See `tasks.backbones.stream.Stream`"""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    side: int
    """Of the pictures, in pixels"""
    dim: int
    heads: int
    layers: int
    dropout: float
    pictures: Mapping[str, int]
    """Most pictures per split, spread evenly over the photographs"""
    recipe: Recipe


_ALL = {"train": 700, "validation": 110, "test": 200}

SETTINGS = {
    Scale.TINY: Setting(
        side=8, dim=32, heads=4, layers=1, dropout=0.0,
        pictures={"train": 256, "validation": 64, "test": 128},
        recipe=Recipe(steps=120, batch_size=16, learning_rate=1e-2),
    ),
    Scale.SMALL: Setting(
        side=16, dim=64, heads=4, layers=2, dropout=0.0, pictures=_ALL,
        recipe=Recipe(steps=400, batch_size=16, learning_rate=8e-3),
    ),
    Scale.BASE: Setting(
        side=32, dim=256, heads=8, layers=6, dropout=0.1, pictures=_ALL,
        recipe=Recipe(
            steps=3000, batch_size=32, learning_rate=1e-3, warmup_steps=200, evaluations=10,
            precision="bfloat16",
        ),
    ),
}  # fmt: skip

_AT_ONCE = 64
_SHOWN, _DRAWN = 5, 3


@register_task(
    TaskInfo(
        id="pixel-modeling",
        title="Modelling of pixels",
        description="The next pixel of a grey photograph of 16 levels in raster order, 16 x 16 "
        "pixels at scale small, 32 x 32 at base. The pixel above stands a row back.",
        backbones={Pattern.CAUSAL_SELF: "stream"},
        metrics=(
            Metric(
                "bits_per_pixel",
                "bit/pixel",
                higher_is_better=False,
                help="Cross-entropy of the level, from all pixels before.",
            ),
            Metric(
                "accuracy",
                "1",
                higher_is_better=True,
                help="Share of pixels whose likeliest level is the right one.",
                headline=False,
            ),
        ),
        references=(
            Reference("frequency", "bits_per_pixel", "Frequency of the levels in training."),
            Reference(
                "left", "bits_per_pixel", "Their frequency given the level of the pixel left."
            ),
            Reference(
                "left-above",
                "bits_per_pixel",
                "Their frequency given the levels of the pixels left and above.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="photographs",
    )
)
class PixelModeling(Task):
    """Grey photographs, pixel by pixel."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        """See `cab.Task`."""
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.pixels = {split: self._read(split) for split in SPLITS}

    def _read(self, split: str) -> Tensor:
        """(N, L) levels of the pictures of a split, row by row."""
        crops = photographs(split)
        kept = min(self.setting.pictures[split], len(crops))
        evenly = torch.arange(kept) * len(crops) // kept
        return grey_levels(resized(crops[evenly], self.setting.side)).flatten(1)

    @property
    def data_hash(self) -> str:
        """Hash of the photographs and of what is made of them."""
        setting = self.setting
        made = (GREY, LEVELS, setting.side, sorted(setting.pictures.items()))
        text = f"{dataset(self.info.dataset).data_hash} {made}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    def length(self) -> tuple[int, int]:
        """Pixels of a picture."""
        return self.setting.side**2, self.setting.side**2

    def build(self, slots: Slots) -> nn.Module:
        """Places start as sines and cosines of the rows and columns of pixels.

        The tokens that predicted pixels near by hold the levels just left of there.
        """
        setting = self.setting
        places = position_code(pixel_centres(setting.side, setting.side), setting.dim, setting.side)
        return LevelStream(
            slots, places, levels=LEVELS, heads=setting.heads, layers=setting.layers,
            sharpness=SHARPNESS, dropout=setting.dropout,
        )  # fmt: skip

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random pictures: ``pixels`` (B, L)."""
        train = self.pixels["train"]
        rows = torch.randint(len(train), (self.recipe.batch_size,), generator=generator)
        return {"pixels": train[rows]}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per pixel."""
        return F.cross_entropy(model(batch["pixels"]).flatten(0, 1), batch["pixels"].flatten())

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("pixels",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, L, levels) scores of each pixel, from those before it."""
        return model(batch["pixels"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over all pictures of a split; nothing is drawn."""
        nats, right, count = 0.0, 0, 0
        for part in parts({"pixels": self.pixels[split]}, _AT_ONCE):
            scores = model(beside(model, part)["pixels"]).float().cpu().flatten(0, 1)
            wanted = part["pixels"].flatten()
            nats += F.cross_entropy(scores, wanted, reduction="sum").item()
            right += int((scores.argmax(-1) == wanted).sum())
            count += len(wanted)
        return {"bits_per_pixel": nats / math.log(2) / count, "accuracy": right / count}

    def references(self, seed: int) -> dict[str, float]:
        """What counting in the training pictures makes of the neighbours of test pixels."""
        side = self.setting.side
        around = {split: neighbours(self.pixels[split], side) for split in ("train", "test")}

        def bits(count: int) -> float:
            train, test = ((around[s][:count], self.pixels[s]) for s in ("train", "test"))
            return bits_per_symbol(train, test, LEVELS)

        return {"frequency": bits(0), "left": bits(1), "left-above": bits(2)}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test pictures whose lower half is drawn from the model, beside the whole."""
        assert isinstance(model, LevelStream)
        side, test = self.setting.side, self.pixels["test"]
        whole = test[torch.arange(_SHOWN) * len(test) // _SHOWN]
        known = side * side // 2
        generator = seeds.evaluation(seed, "test", "completions")
        drawn = model.completed(whole.repeat_interleave(_DRAWN, 0), known, generator)
        given = whole.clone()
        given[:, known:] = LEVELS - 1
        rows = torch.cat([given[:, None], drawn.unflatten(0, (_SHOWN, -1)), whole[:, None]], 1)
        tiles = (rows.unflatten(2, (side, side)) * (255 // (LEVELS - 1))).byte().numpy()
        return [
            pictures.image(
                "completions",
                f"Upper halves of test pictures, {_DRAWN} lower halves drawn from the model, and "
                "the whole.",
                pictures.grid([list(row) for row in tiles]),
                zoom=4,
            )
        ]


def grey_levels(pictures: Tensor) -> Tensor:
    """(N, H, W) int64 levels of grey of (N, 3, H, W) uint8 pictures."""
    red, green, blue = pictures.long().unbind(1)
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return grey * LEVELS // (1000 * 256)


def neighbours(pixels: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(N, L) levels of the pixels left and above; `LEVELS` where there is none.

    Args:
        pixels: (N, L) levels, row by row.
        side: pixels of a row.
    """
    grid = pixels.unflatten(1, (side, side))
    left = F.pad(grid[:, :, :-1], (1, 0), value=LEVELS)
    above = F.pad(grid[:, :-1], (0, 0, 1, 0), value=LEVELS)
    return left.flatten(1), above.flatten(1)
