"""The task ``missing-variables``: forecasts of all variables where whole histories are missing.

Half a day of electric power from the half day before, hourly means of 27 consumers and 28 renewable
sources of which 25, 50, 75 or 90 % are missing. A missing consumer can be told from the calendar
and from its like, a missing sun or wind plant from the others of its kind only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
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
from tasks.evaluation import answers
from tasks.forecasting.data import TIME_FEATURES, SeriesDataset
from tasks.forecasting.simbench import ForecastingSimbench
from tasks.missing_variables.model import VariableModel
from tasks.missing_variables.ridge import RidgeForecaster
from tasks.missing_variables.windows import SHARES, drop, masked_windows, missing_count


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    history: int
    """T, hours"""
    horizon: int
    """O, hours"""
    dim: int
    heads: int
    layers: int
    windows: dict[Split, int]
    """Windows evaluated, at each share of missing variables"""


SETTINGS = {
    Scale.TINY: Setting(12, 12, 32, 4, layers=1, windows={"validation": 64, "test": 128}),
    Scale.SMALL: Setting(12, 12, 64, 4, layers=2, windows={"validation": 128, "test": 512}),
    Scale.BASE: Setting(48, 24, 256, 8, layers=4, windows={"validation": 256, "test": 1024}),
}

RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=16, learning_rate=8e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(steps=1000, batch_size=16, learning_rate=5e-3, betas=(0.9, 0.999)),
    Scale.BASE: Recipe(
        steps=3000,
        batch_size=128,
        learning_rate=5e-4,
        betas=(0.9, 0.999),
        evaluations=8,
        precision="bfloat16",
    ),
}

MASKS = 16
"""Patterns of missing variables per share; consecutive windows have different ones."""

PENALTY = 0.03
"""Of the ridge reference; chosen on the validation split among 0.003, 0.01, 0.03, 0.1 and 0.3."""

SHOWN_VARIABLES = ("PV3", "WP4", "H0-A")


@register_task(
    TaskInfo(
        id="missing-variables",
        title="Missing variables",
        description="12 hours of the power of 27 consumers and 28 renewable sources from the 12 "
        "hours before, where the whole history of 25, 50, 75 or 90 % of them is missing.",
        backbones={
            Pattern.NONCAUSAL_SELF: "variable-encoder",
            Pattern.NONCAUSAL_CROSS: "variable-reader",
        },
        metrics=(
            Metric(
                "mse",
                "sd^2",
                higher_is_better=False,
                help="Squared error of all z-scored variables, mean over the four shares.",
            ),
            *(
                Metric(
                    f"mse_{percent}",
                    "sd^2",
                    higher_is_better=False,
                    help=f"With {percent} % of the variables missing.",
                    headline=False,
                )
                for percent in (25, 50, 75, 90)
            ),
            Metric(
                "mse_missing",
                "sd^2",
                higher_is_better=False,
                help="Of the missing variables alone, mean over the shares.",
                headline=False,
            ),
        ),
        references=(
            Reference("training-mean", "mse", "Each variable's mean in training."),
            Reference("calendar", "mse", "Ridge regression on hour, weekday and season alone."),
            Reference(
                "ridge",
                "mse",
                "Ridge regression on calendar and histories present, refitted to the training "
                "data for every pattern of missing variables.",
            ),
            Reference("ridge-missing", "mse_missing", "The same, of the missing variables."),
            *(
                Reference(f"ridge-{percent}", f"mse_{percent}", "The same, at this share.")
                for percent in (25, 50, 75, 90)
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="simbench-profiles",
        paper="Yu et al., GinAR: An End-To-End Multivariate Time Series Forecasting Model Suitable "
        "for Variable Missing",
        url="https://arxiv.org/abs/2405.11333",
        probe=True,
    )
)
class MissingVariables(Task):
    """Forecasts of hourly power with variables missing."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self._window = self.setting.history + self.setting.horizon
        self.data = SeriesDataset.of(ForecastingSimbench.embedded_table(), self._window)
        self.variables = len(self.data.columns)

    @property
    def data_hash(self) -> str:
        """Hash of the series and of what is dropped from it."""
        setting = self.setting
        settings = (
            SHARES,
            MASKS,
            setting.history,
            setting.horizon,
            sorted(setting.windows.items()),
        )
        return hashlib.sha256(f"{self.data.digest()} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """One token a variable."""
        return self.variables, self.variables

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return VariableModel(
            slots,
            self.pattern,
            variables=self.variables,
            history=setting.history,
            horizon=setting.horizon,
            features=TIME_FEATURES,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
            expansion=2,
            dropout=0.1,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows of the training stretch, each with one of the shares missing."""
        size = (self.recipe.batch_size,)
        last = len(self.data.train) - self._window
        starts = torch.randint(last + 1, size, generator=generator)
        counts = torch.tensor([missing_count(percent, self.variables) for percent in SHARES])
        drawn = counts[torch.randint(len(SHARES), size, generator=generator)]
        present = drop(drawn, self.variables, generator)
        return self._windows("train", starts, present)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of all variables."""
        return F.mse_loss(model(batch), batch["target"])

    def questions(self, split: Split, seed: int) -> dict[int, list[Batch]]:
        """What a split is evaluated on: by share, a batch for each pattern of missing variables,
        which the seed draws.
        """
        series = self.data.validation if split == "validation" else self.data.test
        starts = series.even_starts(self._window, self.setting.windows[split])
        drawn: dict[int, list[Batch]] = {}
        for percent in SHARES:
            counts = torch.full((MASKS,), missing_count(percent, self.variables))
            masks = drop(counts, self.variables, seeds.evaluation(seed, split, percent))
            drawn[percent] = [
                self._windows(split, starts[i::MASKS], mask.expand(len(starts[i::MASKS]), -1))
                for i, mask in enumerate(masks)
            ]
        return drawn

    def _windows(self, split: str, starts: Tensor, present: Tensor) -> Batch:
        data = self.data
        series = {"train": data.train, "validation": data.validation, "test": data.test}[split]
        return masked_windows(series, starts, present, self.setting.history, self.setting.horizon)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Errors on `questions`."""
        return scores(lambda batch: answers(model, batch), self.questions(split, seed))

    def references(self, seed: int) -> dict[str, float]:
        """Errors of the predictors in closed form, on the same test questions."""
        setting, asked = self.setting, self.questions("test", seed)
        ridge = RidgeForecaster(self.data.train, setting.history, setting.horizon, PENALTY)

        def calendar(batch: Batch) -> Tensor:
            nothing = {**batch, "present": torch.zeros_like(batch["present"])}
            return ridge(nothing)

        fitted = scores(ridge, asked)
        return {
            "training-mean": scores(lambda batch: torch.zeros_like(batch["target"]), asked)["mse"],
            "calendar": scores(calendar, asked)["mse"],
            "ridge": fitted["mse"],
            "ridge-missing": fitted["mse_missing"],
            **{f"ridge-{percent}": fitted[f"mse_{percent}"] for percent in SHARES},
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Forecasts of three variables in a test window in which all but a few are missing."""
        shown = [self.data.columns.index(name) for name in SHOWN_VARIABLES]
        start = self.data.test.even_starts(self._window, 3)[1:2]
        present = drop(
            torch.tensor([missing_count(90, self.variables)]),
            self.variables,
            seeds.evaluation(seed, "test", "shown"),
        )
        present[:, shown] = False
        batch = self._windows("test", start, present)
        forecast = answers(model, batch)
        count = int(present.sum())
        return [
            pictures.lines(
                "missing-90",
                f"Forecasts of three variables without a history, from those of {count} others.",
                {
                    self.data.columns[i]: {
                        "truth": batch["target"][0, i].tolist(),
                        "forecast": forecast[0, i].tolist(),
                    }
                    for i in shown
                },
                x="hours ahead",
                y="sd",
            )
        ]


def scores(
    predict: Callable[[Batch], Tensor], questions: Mapping[int, Sequence[Batch]]
) -> dict[str, float]:
    """Every metric of a predictor of (B, K, O) forecasts."""
    whole, missing = {}, []
    for percent, batches in questions.items():
        errors = torch.cat([(predict(b) - b["target"]).double().square().mean(-1) for b in batches])
        present = torch.cat([batch["present"] for batch in batches])
        whole[f"mse_{percent}"] = errors.mean().item()
        missing.append(errors[~present].mean().item())
    return {
        "mse": sum(whole.values()) / len(whole),
        **whole,
        "mse_missing": sum(missing) / len(missing),
    }
