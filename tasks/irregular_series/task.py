"""The task ``irregular-series``: weather at requested times from scattered observations.

Hourly weather of three airports, 24 variables, of which two days are thinned to a few dozen single
values; asked for are other values of the same days (interpolation) and of the hours after them
(extrapolation). Queries know which variable and when, never a value, so without attention nothing
is left but the variable's usual course. Some of the series' values were missing at the source and
repeat the last one measured; they count like others.
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, replace
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
from tasks.irregular_series.model import ObservationModel
from tasks.irregular_series.predictors import (
    covariances,
    kriging,
    last_observation,
    linear_interpolation,
)
from tasks.irregular_series.sampling import RATE_DEVIATION, Sampling, sample


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    sampling: Sampling
    dim: int
    heads: int
    layers: int
    windows: dict[Split, int]
    """Windows evaluated, at each number of observations"""


SETTINGS = {
    Scale.TINY: Setting(
        Sampling(hours=24, ahead=6, counts=(16, 32, 64), inside=16, after=8),
        dim=32,
        heads=4,
        layers=2,
        windows={"validation": 32, "test": 64},
    ),
    Scale.SMALL: Setting(
        Sampling(hours=48, ahead=6, counts=(24, 48, 96), inside=24, after=8),
        dim=64,
        heads=4,
        layers=2,
        windows={"validation": 128, "test": 512},
    ),
    Scale.BASE: Setting(
        Sampling(hours=96, ahead=12, counts=(96, 192, 384), inside=96, after=32),
        dim=128,
        heads=8,
        layers=4,
        windows={"validation": 256, "test": 1024},
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=16, learning_rate=8e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(steps=800, batch_size=32, learning_rate=3e-3, betas=(0.9, 0.999)),
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
        id="irregular-series",
        title="Irregular series",
        description="New York City weather, 24 variables, at requested times of two days and of "
        "the 6 hours after them, from 24 to 96 single observations scattered over variables and "
        "hours (scale small).",
        backbones={
            Pattern.NONCAUSAL_CROSS: "observation-reader",
            Pattern.NONCAUSAL_SELF: "set-encoder",
        },
        metrics=(
            Metric(
                "mse",
                "sd^2",
                higher_is_better=False,
                help="Squared error of z-scored values in the window, mean over the three numbers "
                "of observations.",
            ),
            Metric(
                "mse_ahead",
                "sd^2",
                higher_is_better=False,
                help="Of those in the hours after it.",
            ),
            *(
                Metric(
                    f"mse_{density}",
                    "sd^2",
                    higher_is_better=False,
                    help=f"Interpolation from {help}.",
                    headline=False,
                )
                for density, help in (
                    ("sparse", "the fewest observations (24 at scale small)"),
                    ("medium", "the middle number of observations (48)"),
                    ("dense", "the most observations (96)"),
                )
            ),
        ),
        references=(
            Reference(
                "last-observation",
                "mse",
                "The variable's latest observation; its first one before that, 0 without any.",
            ),
            Reference(
                "linear",
                "mse",
                "The line between the variable's observations around the time asked for.",
            ),
            Reference(
                "kriging",
                "mse",
                "The best linear predictor from all observations, by the lagged covariances of "
                "the training series (a Gaussian process).",
            ),
            Reference("last-observation-ahead", "mse_ahead", "The latest observation, held."),
            Reference("kriging-ahead", "mse_ahead", "Kriging, after the window."),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="nyc-weather",
        paper="Shukla and Marlin, Multi-Time Attention Networks for Irregularly Sampled Time "
        "Series; Zhang et al., Improving Medical Predictions by Irregular Multimodal Electronic "
        "Health Records Modeling",
        url="https://arxiv.org/abs/2210.12156",
        probe=True,
    )
)
class IrregularSeries(Task):
    """Interpolation and short extrapolation of thinned weather."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.sampling = self.setting.sampling
        frame = dataset(self.info.dataset).table().to_pandas()
        dates = pd.DatetimeIndex(frame.pop("timestamp"))
        self._window = self.sampling.hours + self.sampling.ahead
        self.data = SeriesDataset.of(
            WideTable(self.info.dataset, dates, frame.astype(float)), self._window
        )

    @property
    def data_hash(self) -> str:
        """Hash of the series and of how it is sampled."""
        settings = (RATE_DEVIATION, astuple(self.sampling), sorted(self.setting.windows.items()))
        return hashlib.sha256(f"{self.data.digest()} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """Queries that read cost less than a whole encoder, which gets half the batch and fewer
        steps at scale small.
        """
        recipe = RECIPES[self.scale]
        if self.scale is Scale.SMALL and not self.pattern.cross:
            return replace(recipe, steps=500, batch_size=recipe.batch_size // 2)
        return recipe

    def length(self) -> tuple[int, int]:
        """Queries and keys of one window."""
        asked, most = self.sampling.asked, self.sampling.most
        return (asked, most) if self.pattern.cross else (asked + most, asked + most)

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        return ObservationModel(
            slots,
            self.pattern,
            variables=len(self.data.columns),
            features=TIME_FEATURES,
            max_length=max(self.length()),
            dim=self.setting.dim,
            heads=self.setting.heads,
            layers=self.setting.layers,
            expansion=2,
            dropout=0.1,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows of the training stretch, each with a uniform number of observations."""
        series, size = self.data.train, (self.recipe.batch_size,)
        starts = torch.randint(len(series) - self._window + 1, size, generator=generator)
        low, high = min(self.sampling.counts), self.sampling.most
        counts = torch.randint(low, high + 1, size, generator=generator)
        return sample(series, starts, counts, self.sampling, generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of all that is asked for."""
        return F.mse_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> dict[str, Batch]:
        """What a split is evaluated on, by density: windows spread evenly, the same in each; the
        seed draws their sampling.
        """
        series: Series = self.data.validation if split == "validation" else self.data.test
        starts = series.even_starts(self._window, self.setting.windows[split])
        drawn = {}
        for density, count in zip(("sparse", "medium", "dense"), self.sampling.counts, strict=True):
            counts = torch.full_like(starts, count)
            generator = seeds.evaluation(seed, split, density)
            drawn[density] = sample(series, starts, counts, self.sampling, generator)
        return drawn

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`."""
        errors = {}
        for density, batch in self.questions(split, seed).items():
            predicted = [answers(model, part) for part in parts(batch, WINDOWS_AT_ONCE)]
            errors[density] = (torch.cat(predicted) - batch["target"]).double().square()
        return self._scores(errors)

    def references(self, seed: int) -> dict[str, float]:
        """Errors of the predictors in closed form, on the same test questions."""
        covariance = covariances(self.data.train, self._window)
        asked = self.questions("test", seed)
        last, linear, kriged = (
            self._scores({d: (predict(b) - b["target"]).square() for d, b in asked.items()})
            for predict in (
                last_observation,
                linear_interpolation,
                lambda batch: torch.cat(
                    [kriging(part, covariance) for part in parts(batch, WINDOWS_AT_ONCE)]
                ),
            )
        )
        return {
            "last-observation": last["mse"],
            "linear": linear["mse"],
            "kriging": kriged["mse"],
            "last-observation-ahead": last["mse_ahead"],
            "kriging-ahead": kriged["mse_ahead"],
        }

    def _scores(self, errors: dict[str, Tensor]) -> dict[str, float]:
        """Metrics of squared errors (windows, M) by density."""
        inside = {d: e[:, : self.sampling.inside].mean().item() for d, e in errors.items()}
        after = [e[:, self.sampling.inside :].mean().item() for e in errors.values()]
        return {
            "mse": sum(inside.values()) / len(inside),
            "mse_ahead": sum(after) / len(after),
            **{f"mse_{density}": error for density, error in inside.items()},
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Whole courses of a few variables, asked for hour by hour from the dense observations."""
        batch = next(parts(self.questions("test", seed)["dense"], SHOWN_WINDOWS))
        series = self.data.test
        starts = series.even_starts(self._window, self.setting.windows["test"])[:SHOWN_WINDOWS]
        rows = starts[:, None] + torch.arange(self._window)
        truth, times = series.values[rows], series.times[rows]
        charts = []
        predicted = []
        for variable in range(SHOWN_VARIABLES):
            course = {
                **batch,
                "asked_variables": torch.full_like(rows, variable),
                "asked_hours": torch.arange(self._window).expand_as(rows),
                "asked_calendar": times,
            }
            predicted.append(answers(model, course))
        for window in range(len(starts)):
            panels = {
                self.data.columns[variable]: {
                    "truth": truth[window, :, variable].tolist(),
                    "model": predicted[variable][window].tolist(),
                }
                for variable in range(SHOWN_VARIABLES)
            }
            counts = [
                int((batch["observed"] & (batch["variables"] == v))[window].sum())
                for v in range(SHOWN_VARIABLES)
            ]
            charts.append(
                pictures.lines(
                    f"course-{window + 1}",
                    f"Test window {window + 1}, hour by hour; the model saw "
                    f"{', '.join(map(str, counts))} values of these variables.",
                    panels,
                    x="hour",
                    y="sd",
                )
            )
        return charts
