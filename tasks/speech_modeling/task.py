"""The task ``speech-modeling``: what the spectrogram of speech will be, a few frames ahead.

Autoregressive predictive coding (Chung et al. 2019) learns from speech by predicting log-mel frames
some steps ahead, so that what is asked for is more than the smoothness of neighbouring frames. The
frames are those of telephone prompts of one speaker, one every 16 ms, each of a window of 32 ms. It
overlaps with that of the next frame and not with that of the frame after, which is predicted here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.data.embedded import dataset
from tasks.evaluation import device_of
from tasks.speech_modeling.frames import PENALTY, Frames, last_frames, regressed, ridge
from tasks.speech_modeling.model import FrameStream, continued
from tasks.tts.spectrogram import TELEPHONE

AHEAD = 2
"""Frames from the latest that is seen to the one predicted"""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    length: int
    """Frames that are seen"""
    dim: int
    heads: int
    layers: int
    dropout: float
    windows: Mapping[str, int]
    """Most windows evaluated per split; at small and base all that there are"""
    recipe: Recipe


_ALL = {"validation": 10_000, "test": 10_000}

SETTINGS = {
    Scale.TINY: Setting(
        length=48, dim=32, heads=4, layers=1, dropout=0.0,
        windows={"validation": 24, "test": 48},
        recipe=Recipe(steps=120, batch_size=8, learning_rate=5e-3),
    ),
    Scale.SMALL: Setting(
        length=96, dim=64, heads=4, layers=2, dropout=0.0, windows=_ALL,
        recipe=Recipe(steps=600, batch_size=16, learning_rate=8e-3),
    ),
    Scale.BASE: Setting(
        length=256, dim=256, heads=8, layers=6, dropout=0.2, windows=_ALL,
        recipe=Recipe(
            steps=3000, batch_size=32, learning_rate=5e-4, warmup_steps=200, evaluations=10,
            precision="bfloat16",
        ),
    ),
}  # fmt: skip

_AT_ONCE = 32
_SHOWN = 3


@register_task(
    TaskInfo(
        id="speech-modeling",
        title="Modelling of speech frames",
        description="The log-mel frame of a spoken prompt 32 ms ahead, from all frames so far.",
        backbones={Pattern.CAUSAL_SELF: "stream"},
        metrics=(
            Metric(
                "mse",
                "sd^2",
                higher_is_better=False,
                help="Squared error per band, of bands standardised over the training split.",
            ),
            Metric(
                "mae",
                "sd",
                higher_is_better=False,
                help="Absolute error likewise.",
                headline=False,
            ),
        ),
        references=(
            Reference("mean", "mse", "The mean frame of the training split."),
            Reference("repeat", "mse", "The latest frame."),
            Reference("ridge", "mse", "Ridge regression on the last four frames."),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="asterisk-prompts",
    )
)
class SpeechModeling(Task):
    """Frames of telephone prompts."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        """See `cab.Task`."""
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.frames = Frames.read()

    @property
    def data_hash(self) -> str:
        """Hash of the prompts and of what is made of them."""
        setting = self.setting
        made = (TELEPHONE, AHEAD, setting.length, sorted(setting.windows.items()))
        text = f"{dataset(self.info.dataset).data_hash} {made}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self.setting.recipe

    @property
    def window(self) -> int:
        """Frames of a window, those included that are only predicted."""
        return self.setting.length + AHEAD

    def length(self) -> tuple[int, int]:
        """Frames, those included of which no later one is scored."""
        return self.window, self.window

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return FrameStream(
            slots, bands=TELEPHONE.bands, length=self.window, dim=setting.dim,
            heads=setting.heads, layers=setting.layers, dropout=setting.dropout,
        )  # fmt: skip

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Windows from uniform places: ``frames`` (B, T, bands)."""
        places = len(self.frames.splits["train"]) - self.window + 1
        starts = torch.randint(places, (self.recipe.batch_size,), generator=generator)
        return {"frames": self.frames.windows("train", starts, self.window)}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error."""
        frames = batch["frames"]
        return F.mse_loss(model(frames[:, :-AHEAD]), frames[:, AHEAD:])

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("frames",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T, bands) predictions from the frames up to each place."""
        return model(batch["frames"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over disjoint windows of a split; nothing is drawn."""
        device = device_of(model)
        return self._errors(lambda frames: model(frames.to(device)).float().cpu(), split)

    def _errors(self, predict: Callable[[Tensor], Tensor], split: Split) -> dict[str, float]:
        """Of a predictor from (B, T, bands) frames to as many frames `AHEAD` of them."""
        starts = self.frames.even_starts(split, self.window, self.setting.windows[split])
        found = []
        for part in starts.split(_AT_ONCE):
            frames = self.frames.windows(split, part, self.window)
            found.append((predict(frames[:, :-AHEAD]) - frames[:, AHEAD:]).double())
        errors = torch.cat(found)
        return {"mse": errors.square().mean().item(), "mae": errors.abs().mean().item()}

    def references(self, seed: int) -> dict[str, float]:
        """Test errors of predictors that are fitted in closed form, or not at all."""
        starts = self.frames.even_starts("train", self.window, len(self.frames.splits["train"]))
        frames = self.frames.windows("train", starts, self.window)
        seen, wanted = frames[:, :-AHEAD], frames[:, AHEAD:]
        weights = ridge(last_frames(seen).flatten(0, 1), (wanted - seen).flatten(0, 1), PENALTY)
        predictors: dict[str, Callable[[Tensor], Tensor]] = {
            "mean": torch.zeros_like,
            "repeat": lambda x: x,
            "ridge": lambda x: x + regressed(last_frames(x), weights),
        }
        return {name: self._errors(p, "test")["mse"] for name, p in predictors.items()}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test windows as pictures: spoken, predicted frame by frame, and continued from half."""
        assert isinstance(model, FrameStream)
        device = device_of(model)
        starts = self.frames.even_starts("test", self.window, _SHOWN)
        frames = self.frames.windows("test", starts, self.window)
        predicted = torch.cat([frames[:, :AHEAD], model(frames[:, :-AHEAD].to(device)).cpu()], 1)
        half = self.window // 2
        alone = continued(model, frames.to(device), half, AHEAD).cpu()
        tiles = [
            [_shades(row) for row in kinds] for kinds in zip(frames, predicted, alone, strict=True)
        ]
        sound = TELEPHONE.sound(self.frames.log_mel(predicted[0]).numpy())
        return [
            pictures.image(
                "spectrograms",
                "Mel bands of test windows over time: spoken, each frame predicted from those up "
                f"to {AHEAD} before, and continued from the middle on by the model alone.",
                pictures.grid(tiles),
                zoom=3,
            ),
            pictures.sound("predicted", "The first of them as predicted.", sound, TELEPHONE.rate),
        ]


def _shades(frames: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """(bands, T) grey of (T, bands), the lowest band at the bottom: -2 to 2 deviations."""
    grey = (frames.T.flip(0).clamp(-2, 2) + 2) * (255 / 4)
    return grey.round().byte().numpy()
