"""What every forecasting task shares: data, windows, loss, errors and pictures.

Errors are those of the z-scored series, as in the long-term forecasting literature, averaged over
windows, steps and variables. Models take (history, history_times, horizon_times) and give the
horizon.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Artifact, Batch, Pattern, Recipe, Scale, Task
from cab.errors import DataError
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.data.embedded import dataset as embedded_dataset
from tasks.evaluation import device_of
from tasks.forecasting.data import SeriesDataset, WideTable
from tasks.forecasting.published import Lengths, published, target_column
from tasks.forecasting.wide_csv import folder_problems, read_folder

_EVALUATION_BATCH = 128
_SHOWN_WINDOWS, _SHOWN_VARIABLES = 3, 3

ALL_WINDOWS = 1 << 31


@dataclass(frozen=True)
class Geometry:
    """Windows and backbone of one scale."""

    lengths: Lengths
    dim: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    expansion: int
    """Of the feed-forward layers, hidden width by ``dim``"""
    dropout: float
    windows: Mapping[str, int]
    """Windows evaluated per split."""


def published_geometry(table: WideTable) -> Geometry:
    """Informer's, with CAB's lengths and numbers of layers for the data set."""
    settings = published(table.name)
    return Geometry(
        settings.lengths(len(table.numbers.columns)),
        dim=512,
        heads=8,
        encoder_layers=settings.encoder_layers,
        decoder_layers=settings.decoder_layers,
        expansion=4,
        dropout=0.05,
        windows={"validation": ALL_WINDOWS, "test": ALL_WINDOWS},
    )


def published_recipe(training_windows: int) -> Recipe:
    """Informer's: Adam at 1e-4, 32 windows a batch, 6 epochs, the best epoch of the validation.

    Informer halves the rate after each epoch; the cosine here ends where that ends, at 1/32. A
    batch is drawn at random instead of from a shuffled list, so an epoch is one in number only.
    """
    batch, epochs = 32, 6
    return Recipe(
        steps=epochs * max(1, training_windows // batch),
        batch_size=batch,
        learning_rate=1e-4,
        warmup_steps=0,
        betas=(0.9, 0.999),
        weight_decay=0.0,
        gradient_clip=math.inf,
        final_lr_fraction=1 / 32,
        evaluations=epochs,
    )


class SeriesTask(Task):
    """Forecasts of a multivariate series, the last part of the time held out.

    At scale ``paper`` the first windows of validation and test take their history from the end of
    the split before, as published; at the other scales a window lies wholly inside its split.
    """

    target: ClassVar[str]
    """Column of the embedded data whose errors are also reported alone"""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        if data_dir is None:
            self._load(self.embedded_table())
            return
        table = read_folder(data_dir)
        try:
            self._load(table)
        except DataError as error:
            raise DataError(f"{data_dir / table.name}.csv: {error}") from error

    def _load(self, table: WideTable) -> None:
        self.geometry = self.choose_geometry(table)
        self.history, self.horizon = self.geometry.lengths.history, self.geometry.lengths.horizon
        self.data = SeriesDataset.of(
            table,
            self.history + self.horizon,
            published(table.name).bounds(),
            reach=self.history if self.scale is Scale.PAPER else 0,
        )
        self._target = self.data.columns.index(target_column(table, self.target))

    @classmethod
    def embedded_table(cls) -> WideTable:
        """The embedded data: a column ``timestamp``, every other one a variable."""
        frame = embedded_dataset(cls.info.dataset).table().to_pandas()
        dates = pd.DatetimeIndex(frame.pop("timestamp"))
        return WideTable(cls.info.dataset, dates, frame.astype(np.float64))

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """See `cab.Task.data_problems`; the longest windows must fit."""
        problems = list(folder_problems(data_dir))
        return problems or super().data_problems(data_dir)

    @abstractmethod
    def choose_geometry(self, table: WideTable) -> Geometry:
        """Windows and backbone at this scale."""

    @property
    def data_hash(self) -> str:
        """See `cab.Task.data_hash`."""
        return self.data.digest()

    @property
    def training_windows(self) -> int:
        """Windows that fit into the training stretch."""
        return len(self.data.train) - self.history - self.horizon + 1

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows of the training stretch; see `Series.windows`."""
        starts = torch.randint(
            self.training_windows, (self.recipe.batch_size,), generator=generator
        )
        return self.data.train.windows(starts, self.history, self.horizon)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(forecast(model, batch), batch["target"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over windows spread evenly; each counts alike."""
        series = self.data.validation if split == "validation" else self.data.test
        window = self.history + self.horizon
        starts = series.even_starts(window, self.geometry.windows[split])
        device = device_of(model)
        sums = dict.fromkeys((metric.name for metric in self.info.metrics), 0.0)
        for part in torch.split(starts, _EVALUATION_BATCH):
            windows = series.windows(part, self.history, self.horizon)
            batch = {name: tensor.to(device) for name, tensor in windows.items()}
            error = forecast(model, batch) - batch["target"]
            for suffix, one in (("", error), ("_target", error[..., self._target])):
                sums[f"mse{suffix}"] += one.square().mean().item() * len(part)
                sums[f"mae{suffix}"] += one.abs().mean().item() * len(part)
        return {name: total / len(starts) for name, total in sums.items()}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Forecasts of the first variables in three test windows, in standard deviations."""
        series, before = self.data.test, min(self.horizon, self.history)
        starts = series.even_starts(self.history + self.horizon, _SHOWN_WINDOWS)
        windows = series.windows(starts, self.history, self.horizon)
        device = device_of(model)
        predicted = forecast(model, {name: x.to(device) for name, x in windows.items()}).cpu()
        return [
            pictures.lines(
                f"forecast-{i + 1}",
                f"Window {i + 1} of the test split: what came last, the truth and the forecast.",
                {
                    column: {
                        "history": windows["history"][i, -before:, j].tolist(),
                        "truth": windows["target"][i, :, j].tolist(),
                        "forecast": predicted[i, :, j].tolist(),
                    }
                    for j, column in enumerate(self.data.columns[:_SHOWN_VARIABLES])
                },
                x="steps ahead",
                y="sd",
                start={"history": -before},
            )
            for i in range(len(predicted))
        ]


def forecast(model: nn.Module, batch: Batch) -> Tensor:
    """(B, O, K) prediction; the batch's target is not read."""
    return model(batch["history"], batch["history_times"], batch["horizon_times"])
