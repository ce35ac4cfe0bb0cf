"""Long-horizon forecasting of many variables at once (CAB section 4, LSTF).

A day of hourly weather from four days of it. Errors are those of the z-scored series, as in the
long-term forecasting literature, averaged over windows, steps and variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Scale,
    Slots,
    Task,
    TaskInfo,
    register_task,
)
from cab.task_contract import Split
from tasks import pictures
from tasks.forecasting.data import TIME_FEATURES, SeriesDataset, load_series
from tasks.forecasting.model import EncoderDecoder, MaskedEncoder

HISTORY = 96
"""Steps the model sees."""
HORIZON = 24
"""Steps it predicts."""


@dataclass(frozen=True)
class _Size:
    dim: int
    encoder_decoder_layers: int
    """Of the encoder and of the decoder each."""
    masked_encoder_layers: int
    windows: Mapping[str, int]
    """Windows evaluated per split."""


_SIZES = {
    Scale.TINY: _Size(32, 1, 2, MappingProxyType({"validation": 64, "test": 128})),
    Scale.SMALL: _Size(64, 2, 3, MappingProxyType({"validation": 128, "test": 512})),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=16, learning_rate=2e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(steps=400, batch_size=16, learning_rate=1e-3, betas=(0.9, 0.999)),
}

_HEADS = 4
_EVALUATION_BATCH = 128


@register_task(
    TaskInfo(
        id="forecasting",
        title="Forecasting",
        description="24 hours of New York City weather, 24 variables, from the 96 hours before.",
        backbones={
            Pattern.NONCAUSAL_CROSS: "encoder-decoder",
            Pattern.NONCAUSAL_SELF: "masked-encoder",
        },
        metrics=(
            Metric(
                "mse",
                "sd^2",
                higher_is_better=False,
                help="Mean squared error of the z-scored variables.",
            ),
            Metric(
                "mae",
                "sd",
                higher_is_better=False,
                help="Mean absolute error of the z-scored variables.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL),
        dataset="nyc-weather",
        data_dir="a folder with exactly one .csv, as ETT, ECL and Weather are published: first "
        "column 'date', every other column numeric without gaps, rows in time order",
        paper="Zhang et al., CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",
        url="https://arxiv.org/abs/2210.07661",
    )
)
class Forecasting(Task):
    """Forecasts of a multivariate series, the last fifth of the time held out."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self._size = _SIZES[scale]
        self.data: SeriesDataset = load_series(self.info.dataset, data_dir, HISTORY + HORIZON)

    @property
    def data_hash(self) -> str:
        """See `cab.Task.data_hash`."""
        return self.data.digest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        if self.pattern is Pattern.NONCAUSAL_CROSS:
            return HORIZON, HISTORY
        return HISTORY + HORIZON, HISTORY + HORIZON

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        cross = self.pattern is Pattern.NONCAUSAL_CROSS
        size = self._size
        return (EncoderDecoder if cross else MaskedEncoder)(
            slots,
            history=HISTORY,
            horizon=HORIZON,
            variables=len(self.data.columns),
            features=TIME_FEATURES,
            dim=size.dim,
            heads=_HEADS,
            layers=size.encoder_decoder_layers if cross else size.masked_encoder_layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows of the training stretch; see `Series.windows`."""
        series = self.data.train
        starts = torch.randint(
            len(series) - HISTORY - HORIZON + 1, (self.recipe.batch_size,), generator=generator
        )
        return series.windows(starts, HISTORY, HORIZON)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(forecast(model, batch), batch["target"])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over windows spread evenly; each counts alike."""
        series = self.data.validation if split == "validation" else self.data.test
        starts = series.even_starts(HISTORY + HORIZON, self._size.windows[split])
        device = next(model.parameters()).device
        squared = absolute = 0.0
        for part in torch.split(starts, _EVALUATION_BATCH):
            windows = series.windows(part, HISTORY, HORIZON)
            batch = {name: tensor.to(device) for name, tensor in windows.items()}
            error = forecast(model, batch) - batch["target"]
            squared += error.square().mean().item() * len(part)
            absolute += error.abs().mean().item() * len(part)
        return {"mse": squared / len(starts), "mae": absolute / len(starts)}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Forecasts of the first variables in three test windows, in standard deviations."""
        series = self.data.test
        windows = series.windows(series.even_starts(HISTORY + HORIZON, 3), HISTORY, HORIZON)
        device = next(model.parameters()).device
        predicted = forecast(model, {name: x.to(device) for name, x in windows.items()}).cpu()
        return [
            pictures.lines(
                f"forecast-{i + 1}",
                f"Window {i + 1} of the test split: what came last, the truth and the forecast.",
                {
                    column: {
                        "history": windows["history"][i, -HORIZON:, j].tolist(),
                        "truth": windows["target"][i, :, j].tolist(),
                        "forecast": predicted[i, :, j].tolist(),
                    }
                    for j, column in enumerate(self.data.columns[:3])
                },
                x="steps ahead",
                y="sd",
                start={"history": -HORIZON},
            )
            for i in range(len(predicted))
        ]


def forecast(model: nn.Module, batch: Batch) -> Tensor:
    """(B, O, K) prediction; the batch's target is not read."""
    return model(batch["history"], batch["history_times"], batch["horizon_times"])
