"""The task ``weather-inpainting``: hidden blocks of weather from those left visible.

Hourly weather of three airports, 24 variables, two days at scale small, in blocks of six hours of
one variable, half of them hidden. Hidden blocks are queries that know which variable and when, so
without attention the answer is the variable's usual course. `irregular-series` scatters single
observations of the same weather.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
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
from tasks.data.embedded import dataset
from tasks.evaluation import answers, parts
from tasks.forecasting.data import TIME_FEATURES, Series, SeriesDataset, WideTable
from tasks.problems.hidden import filled
from tasks.weather_inpainting.interpolation import courses, linear_interpolation
from tasks.weather_inpainting.model import BlockReader
from tasks.weather_inpainting.windows import draw


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    blocks: int
    """Of each variable in a window"""
    hours: int
    """Of a block"""
    dim: int
    heads: int
    layers: int
    windows: Mapping[Split, int]
    """Windows evaluated"""


SETTINGS = {
    Scale.TINY: Setting(4, 6, 32, 4, layers=1, windows={"validation": 64, "test": 128}),
    Scale.SMALL: Setting(8, 6, 64, 4, layers=2, windows={"validation": 256, "test": 256}),
    Scale.BASE: Setting(24, 4, 128, 8, layers=4, windows={"validation": 256, "test": 1024}),
}

RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=16, learning_rate=8e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(steps=600, batch_size=16, learning_rate=3e-3, betas=(0.9, 0.999)),
    Scale.BASE: Recipe(
        steps=4000,
        batch_size=64,
        learning_rate=1e-3,
        betas=(0.9, 0.999),
        evaluations=8,
        precision="bfloat16",
    ),
}

WINDOWS_AT_ONCE = 64
SHOWN_WINDOWS, SHOWN_VARIABLES = 2, 3


@register_task(
    TaskInfo(
        id="weather-inpainting",
        title="Weather inpainting",
        description="Hidden blocks of New York City weather, 24 variables, from the visible ones: "
        "half of the blocks of 6 hours of one variable in windows of two days (scale small). The "
        "control none answers a variable's usual course through day and year.",
        backbones={Pattern.NONCAUSAL_CROSS: "block-reader"},
        metrics=(
            Metric(
                "mse",
                "sd^2",
                higher_is_better=False,
                help="Squared error of the hidden z-scored values.",
            ),
            Metric(
                "mae",
                "sd",
                higher_is_better=False,
                help="Absolute error of the hidden z-scored values.",
                headline=False,
            ),
        ),
        references=(
            Reference("training-mean", "mse", "Every variable's mean in training, 0."),
            Reference(
                "linear",
                "mse",
                "The line between the variable's visible hours around, 0 where there are none.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="nyc-weather",
    )
)
class WeatherInpainting(Task):
    """Weather with holes."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        frame = dataset(self.info.dataset).table().to_pandas()
        dates = pd.DatetimeIndex(frame.pop("timestamp"))
        self._window = self.setting.blocks * self.setting.hours
        self.data = SeriesDataset.of(
            WideTable(self.info.dataset, dates, frame.astype(float)), self._window
        )

    @property
    def data_hash(self) -> str:
        """Hash of the series and of how it is cut and hidden."""
        setting = self.setting
        windows = sorted(setting.windows.items())
        settings = (setting.blocks, setting.hours, self.length(), windows)
        return hashlib.sha256(f"{self.data.digest()} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Hidden and visible blocks."""
        count = self.setting.blocks * len(self.data.columns)
        return count // 2, count - count // 2

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return BlockReader(
            slots,
            variables=len(self.data.columns),
            blocks=setting.blocks,
            hours=setting.hours,
            features=TIME_FEATURES,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows of the training stretch under fresh holes."""
        train, size = self.data.train, (self.recipe.batch_size,)
        starts = torch.randint(len(train) - self._window + 1, size, generator=generator)
        return self._draw(train, starts, generator)

    def _draw(self, series: Series, starts: Tensor, generator: torch.Generator) -> Batch:
        setting = self.setting
        hidden, _ = self.length()
        return draw(series, starts, setting.blocks, setting.hours, hidden, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of z-scored values."""
        return F.mse_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> list[Batch]:
        """Windows spread evenly over a split; the seed draws their holes."""
        series = self.data.validation if split == "validation" else self.data.test
        starts = series.even_starts(self._window, self.setting.windows[split])
        whole = self._draw(series, starts, seeds.evaluation(seed, split))
        return list(parts(whole, WINDOWS_AT_ONCE))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`."""
        return scores(lambda batch: answers(model, batch), self.questions(split, seed))

    def references(self, seed: int) -> dict[str, float]:
        """Errors of simple predictors on the same test questions."""
        asked, variables = self.questions("test", seed), len(self.data.columns)
        return {
            "training-mean": scores(lambda batch: torch.zeros_like(batch["target"]), asked)["mse"],
            "linear": scores(lambda batch: linear_interpolation(batch, variables), asked)["mse"],
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Courses of the variables with most hidden blocks in two test windows."""
        starts = self.data.test.even_starts(self._window, SHOWN_WINDOWS)
        batch = self._draw(self.data.test, starts, seeds.evaluation(seed, "test", "shown"))
        variables = len(self.data.columns)
        truth = courses(filled(batch, batch["target"]), variables)
        said = courses(filled(batch, answers(model, batch)), variables)
        charts = []
        for window, asked in enumerate(batch["asked_places"]):
            hidden = torch.bincount(asked % variables, minlength=variables)
            shown = hidden.argsort(descending=True, stable=True)[:SHOWN_VARIABLES].tolist()
            panels = {
                self.data.columns[variable]: {
                    "truth": truth[window, variable].tolist(),
                    "filled": said[window, variable].tolist(),
                }
                for variable in shown
            }
            charts.append(
                pictures.lines(
                    f"course-{window + 1}",
                    f"Test window {window + 1}, hour by hour, the variables with most hidden "
                    f"blocks ({', '.join(str(int(hidden[v])) for v in shown)} of "
                    f"{self.setting.blocks}): the truth, and the model's answers in the holes.",
                    panels,
                    x="hour",
                    y="sd",
                )
            )
        return charts


def scores(predict: Callable[[Batch], Tensor], questions: Sequence[Batch]) -> dict[str, float]:
    """Every metric of a predictor of (B, M, hours) blocks."""
    errors = torch.cat([(predict(b) - b["target"]).double() for b in questions])
    return {"mse": errors.square().mean().item(), "mae": errors.abs().mean().item()}
