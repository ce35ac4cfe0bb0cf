"""The task ``autoregressive-super-resolution``: finer grey pixels from coarse colours, as tokens.

As Pixel Recursive Super Resolution (Dahl et al. 2017), small: an encoder reads the coarse pixels,
a decoder writes the fine ones in raster order, each as one of 16 levels, given those before. To
write one it must find the coarse pixel at its own place and the ones around, which say how the
picture goes on to the right and below, where its own text does not reach. There are no
convolutions; attention starts as nearness of places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.autoregressive_super_resolution import levels
from tasks.autoregressive_super_resolution.baselines import Counts, bicubic, repeated
from tasks.backbones.placed_encoder_decoder import PlacedEncoderDecoder, Size
from tasks.data.embedded import SPLITS, dataset
from tasks.data.images import photographs
from tasks.sequence_transduction import FIRST_TOKEN, TransductionTask, token_losses

POSITION_BASE = 30.0

_COUNTED = 4000
"""Training windows that the reference counts in"""

_SHOWN = 6


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    side: int
    """Of a window of a photograph, px; a multiple of 4"""
    size: Size
    evaluated: Mapping[str, int]
    """Windows per split"""
    decoded: int
    """Test windows that are decoded"""


SETTINGS = {
    Scale.TINY: Setting(
        12,
        Size(dim=32, heads=4, encoder=1, decoder=1),
        {"validation": 64, "test": 128},
        decoded=16,
    ),
    Scale.SMALL: Setting(
        24,
        Size(dim=64, heads=4, encoder=1, decoder=2),
        {"validation": 128, "test": 256},
        decoded=32,
    ),
    Scale.BASE: Setting(
        32,
        Size(dim=256, heads=8, encoder=2, decoder=6, expansion=4),
        {"validation": 256, "test": 512},
        decoded=128,
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=16, learning_rate=5e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=400, batch_size=16, learning_rate=5e-3),
    Scale.BASE: Recipe(
        steps=6000,
        batch_size=64,
        learning_rate=5e-4,
        warmup_steps=300,
        evaluations=8,
        precision="bfloat16",
    ),
}


@register_task(
    TaskInfo(
        id="autoregressive-super-resolution",
        title="Super-resolution pixel by pixel",
        description="The grey pixels of a photograph as tokens in raster order, from its colours "
        "at half the size; whole photographs are held out. With the control none the decoder sees "
        "only the pixels before.",
        backbones={Pattern.CAUSAL_CROSS: "placed-encoder-decoder"},
        metrics=(
            Metric(
                "nll",
                "nat/pixel",
                higher_is_better=False,
                help="Negative log-likelihood of a pixel's level, teacher-forced.",
            ),
            Metric(
                "psnr",
                "dB",
                higher_is_better=True,
                help="Peak signal-to-noise ratio of pictures written greedily (16 test pictures "
                "at scale tiny, 32 at small, 128 at base).",
                headline=False,
            ),
        ),
        references=(
            Reference(
                "counts",
                "nll",
                "Counts of levels given that of the coarse pixel and of the pixel to the left.",
            ),
            Reference("repeated", "psnr", "The grey of the coarse pixel."),
            Reference("bicubic", "psnr", "Bicubic interpolation of the coarse pixels."),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="photographs",
        paper="Dahl et al., Pixel Recursive Super Resolution (the setting)",
        url="https://arxiv.org/abs/1702.00783",
    )
)
class AutoregressiveSuperResolution(TransductionTask):
    """Coarse colours to levels of grey."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.crops = {split: photographs(split) for split in SPLITS}
        self.decoded = self.setting.decoded

    @property
    def data_hash(self) -> str:
        """Hash of the photographs and of the windows' size and number."""
        settings = (self.setting.side, sorted(self.setting.evaluated.items()))
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    @property
    def written(self) -> tuple[int, int]:
        """See `TransductionTask.written`: all fine pixels."""
        pixels = (self.setting.side // levels.FINE) ** 2
        return pixels, pixels

    def length(self) -> tuple[int, int]:
        """Fine and coarse pixels."""
        return self.written[1], (self.setting.side // levels.COARSE) ** 2

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size, side = self.setting.size, self.setting.side
        coarse, fine = levels.coarse_centres(side), levels.fine_centres(side)
        return PlacedEncoderDecoder(
            slots,
            size,
            tokens=FIRST_TOKEN + levels.LEVELS,
            features=3,
            source_places=levels.place_codes(coarse, size.dim, POSITION_BASE),
            target_places=levels.place_codes(fine, size.dim, POSITION_BASE),
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Windows at uniform places of training photographs."""
        return levels.as_batch(self._draw("train", self.recipe.batch_size, generator))

    def _draw(self, split: str, count: int, generator: torch.Generator) -> Tensor:
        return levels.random_windows(self.crops[split], self.setting.side, count, generator)

    def windows(self, split: Split, seed: int) -> Tensor:
        """(N, 3, H, H) uint8 that a split is evaluated on."""
        generator = seeds.evaluation(seed, split)
        return self._draw(split, self.setting.evaluated[split], generator)

    def problems(self, split: Split, seed: int) -> Batch:
        """See `TransductionTask.problems`."""
        return levels.as_batch(self.windows(split, seed))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihood of a split; on the test split also the fidelity of greedy pictures."""
        scores = {"nll": token_losses(model, self.problems(split, seed)).mean().item()}
        if split == "test":
            decoded = self.windows(split, seed)[: self.decoded]
            scores["psnr"] = _psnr(self._painted(model, decoded), decoded)
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """See `cab.Task.references`."""
        test = self.windows("test", seed)
        training = self._draw("train", _COUNTED, seeds.generator(0, "statistics"))
        decoded = test[: self.decoded]
        return {
            "counts": Counts(training).nll(test),
            "repeated": _psnr(repeated(decoded), decoded),
            "bicubic": _psnr(bicubic(decoded), decoded),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few test pictures: coarse, bicubic, the model's, true."""
        test = self.windows("test", seed)[:_SHOWN]
        columns = (
            repeated(test),
            bicubic(test),
            self._painted(model, test),
            levels.fine_grey(test),
        )
        tiles = [[_tile(picture) for picture in row] for row in zip(*columns, strict=True)]
        return [
            pictures.image(
                "painted",
                "Test pictures in grey: the coarse pixels, which the model sees in colour, bicubic "
                "interpolation, the model's pixels by greedy decoding, the truth.",
                pictures.grid(tiles),
                zoom=6,
            )
        ]

    def _painted(self, model: nn.Module, windows: Tensor) -> Tensor:
        """(B, h, h) greys of greedy outputs for windows."""
        written = torch.tensor(self.outputs(model, levels.as_batch(windows)))
        high = self.setting.side // levels.FINE
        return levels.to_grey(written - FIRST_TOKEN).unflatten(1, (high, high))


def _psnr(greys: Tensor, windows: Tensor) -> float:
    """Of greys in 0..1, from the mean squared error over all pictures."""
    error = (greys - levels.fine_grey(windows)).double().square().mean().item()
    return -10 * math.log10(error)


def _tile(grey: Tensor) -> NDArray[np.uint8]:
    return (255 * grey).round().to(torch.uint8).numpy()
