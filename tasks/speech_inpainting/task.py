"""The task ``speech-inpainting``: hidden frames of speech from those left visible.

Log-mel frames of telephone prompts, 16 ms apart, in windows of about a second at scale small, half
of them hidden in gaps of 64 ms and more. Hidden frames are queries that know their place alone and
do not see each other, so without attention the answer is the same for all windows.
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
from tasks.evaluation import answers, parts
from tasks.problems.hidden import filled, hide
from tasks.speech_inpainting.model import FrameReader
from tasks.speech_inpainting.predictors import (
    covariances,
    kriging,
    linear_interpolation,
    visible_mean,
)
from tasks.speech_inpainting.windows import SPECTROGRAM, Frames, draw_gaps

DECIBELS = 20 / math.log(10)
"""Of a natural logarithm of an amplitude"""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    frames: int
    """Of a window"""
    gap: int
    """Frames of a block that is hidden or visible"""
    stride: int
    """Frames from one evaluated window to the next of the same clip"""
    dim: int
    heads: int
    layers: int

    @property
    def hidden(self) -> int:
        """Frames hidden of a window."""
        return self.frames // 2


SETTINGS = {
    Scale.TINY: Setting(frames=32, gap=4, stride=16, dim=32, heads=4, layers=1),
    Scale.SMALL: Setting(frames=64, gap=4, stride=8, dim=64, heads=4, layers=2),
    Scale.BASE: Setting(frames=96, gap=4, stride=4, dim=128, heads=8, layers=4),
}

RECIPES = {
    Scale.TINY: Recipe(steps=150, batch_size=16, learning_rate=5e-3),
    Scale.SMALL: Recipe(steps=2000, batch_size=16, learning_rate=3e-3),
    Scale.BASE: Recipe(
        steps=4000, batch_size=64, learning_rate=1e-3, evaluations=10, precision="bfloat16"
    ),
}

WINDOWS_AT_ONCE = 64
SHOWN = 3
_PAUSE_S = 0.25
"""Between the windows of a sound sample"""


@register_task(
    TaskInfo(
        id="speech-inpainting",
        title="Speech inpainting",
        description="Hidden log-mel frames of telephone prompts, all of one speaker, from the "
        "visible ones: half of a window of 64 frames, 16 ms apart (scale small), in gaps of 4 "
        "frames and more; clips are split between training, validation and test.",
        backbones={Pattern.NONCAUSAL_CROSS: "frame-reader"},
        metrics=(
            Metric(
                "mse",
                "sd^2",
                higher_is_better=False,
                help="Squared error of hidden frames, each band in deviations of the training "
                "frames.",
            ),
            Metric(
                "lsd",
                "dB",
                higher_is_better=False,
                help="Log-spectral distance: root of the mean squared difference over the bands "
                "of a frame, mean over hidden frames.",
                headline=False,
            ),
        ),
        references=(
            Reference("visible-mean", "mse", "The mean of the window's visible frames."),
            Reference(
                "linear", "mse", "The line between the visible frames before and behind the gap."
            ),
            Reference(
                "kriging",
                "mse",
                "The best linear predictor of a band from the same band's visible frames, by the "
                "lagged covariances of the training windows.",
            ),
            Reference("linear-lsd", "lsd", "The line, as above."),
            Reference("kriging-lsd", "lsd", "Kriging, as above."),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="asterisk-prompts",
    )
)
class SpeechInpainting(Task):
    """Spectrograms with gaps."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.frames = Frames(self.info.dataset, self.setting.frames, self.setting.stride)

    @property
    def data_hash(self) -> str:
        """Hash of the speech and of how it is cut and hidden."""
        setting = self.setting
        settings = (SPECTROGRAM, setting.frames, setting.hidden, setting.gap, setting.stride)
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Hidden and visible frames."""
        return self.setting.hidden, self.setting.frames - self.setting.hidden

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return FrameReader(
            slots,
            frames=setting.frames,
            bands=SPECTROGRAM.bands,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Random windows of random clips under fresh gaps; a clip counts by its length."""
        starts = self.frames.training_starts
        rows = torch.randint(len(starts), (self.recipe.batch_size,), generator=generator)
        return self._hide(self.frames.windows("train", starts[rows]), generator)

    def _hide(self, windows: Tensor, generator: torch.Generator) -> Batch:
        setting = self.setting
        gaps = draw_gaps(len(windows), setting.frames, setting.hidden, setting.gap, generator)
        return hide(windows, gaps)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of standardised frames."""
        return F.mse_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> list[Batch]:
        """Windows at equal steps through all clips of a split; the seed draws their gaps."""
        windows = self.frames.windows(split, self.frames.starts[split])
        whole = self._hide(windows, seeds.evaluation(seed, split))
        return list(parts(whole, WINDOWS_AT_ONCE))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`."""
        return self._scores(lambda batch: answers(model, batch), self.questions(split, seed))

    def references(self, seed: int) -> dict[str, float]:
        """Errors of predictors in closed form, on the same test questions."""
        asked = self.questions("test", seed)
        known = covariances(self.frames.windows("train", self.frames.starts["train"]))
        linear = self._scores(linear_interpolation, asked)
        kriged = self._scores(lambda batch: kriging(batch, known), asked)
        return {
            "visible-mean": self._scores(visible_mean, asked)["mse"],
            "linear": linear["mse"],
            "kriging": kriged["mse"],
            "linear-lsd": linear["lsd"],
            "kriging-lsd": kriged["lsd"],
        }

    def _scores(
        self, predict: Callable[[Batch], Tensor], questions: Sequence[Batch]
    ) -> dict[str, float]:
        """Every metric of a predictor of (B, M, bands) standardised frames."""
        errors = torch.cat([(predict(b) - b["target"]).double() for b in questions])
        levels = DECIBELS * self.frames.deviation.double() * errors
        return {
            "mse": errors.square().mean().item(),
            "lsd": levels.square().mean(-1).sqrt().mean().item(),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test windows with their gaps, filled by the model, and whole: to see and to hear."""
        starts = self.frames.starts["test"]
        chosen = starts[torch.arange(SHOWN) * len(starts) // SHOWN]
        batch = self._hide(
            self.frames.windows("test", chosen), seeds.evaluation(seed, "test", "shown")
        )
        target = batch["target"]
        silence = torch.full_like(target, float(target.min()))
        versions = {
            "gaps": filled(batch, silence),
            "linear": filled(batch, linear_interpolation(batch)),
            "model": filled(batch, answers(model, batch)),
            "truth": filled(batch, target),
        }
        low, high = float(target.min()), float(target.max())
        tiles = [
            [_grey(version[i], low, high) for version in versions.values()] for i in range(SHOWN)
        ]
        rate = SPECTROGRAM.rate
        pause = np.zeros(round(_PAUSE_S * rate))
        sounds = [
            pictures.sound(
                f"speech-{name}",
                f"The same windows one after the other, {what}, made sound by Griffin and Lim.",
                np.concatenate(
                    [
                        piece
                        for window in versions[name]
                        for piece in (SPECTROGRAM.sound(self.frames.log_mel(window)), pause)
                    ]
                ),
                rate,
            )
            for name, what in (
                ("gaps", "with gaps"),
                ("model", "filled by the model"),
                ("truth", "whole"),
            )
        ]
        caption = (
            "Test windows: with gaps (black), filled by linear interpolation, by the model, the "
            "truth; time to the right, low bands at the bottom."
        )
        return [pictures.image("filled-in", caption, pictures.grid(tiles, gap=4), zoom=2), *sounds]


def _grey(frames: Tensor, low: float, high: float) -> NDArray[np.uint8]:
    """(bands, T) picture of (T, bands) frames, low bands at the bottom."""
    shades = (255 * ((frames - low) / (high - low)).clamp(0, 1)).round().to(torch.uint8)
    return np.flipud(shades.T.numpy())
