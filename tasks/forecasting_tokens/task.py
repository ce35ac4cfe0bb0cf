"""The task ``forecasting-tokens``: the next day of a series of power, hour by hour, as tokens.

As Chronos (Ansari et al. 2024), small: values become tokens by quantisation, an encoder reads four
days of one series and a decoder writes the next one, so that a forecast is a distribution. The
series is not named and no calendar is given: what it does at which hour has to be read from its
past.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
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
from tasks.backbones.placed_encoder_decoder import PlacedEncoderDecoder, Size
from tasks.data.embedded import dataset
from tasks.evaluation import beside
from tasks.forecasting_tokens.baselines import Counts, last_day
from tasks.forecasting_tokens.sampling import crps, sampled
from tasks.forecasting_tokens.tokens import DAY, Bins, Drawn, Windows, hour_codes, load
from tasks.sequence_transduction import FIRST_TOKEN, TransductionTask, token_losses
from tasks.summarization.encoder_decoder import EncoderDecoder

POSITION_BASE = 300.0

_COUNTED = 20_000
"""Training windows that the reference counts in"""

_SHOWN = 3


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    past: int
    """Hours that are read"""
    bins: int
    size: Size
    evaluated: Mapping[str, int]
    """Windows per split"""
    forecast: int
    """Test windows whose forecasts are drawn"""
    samples: int
    """Forecasts that are drawn of a window"""


SETTINGS = {
    Scale.TINY: Setting(
        48,
        16,
        Size(dim=32, heads=4, encoder=1, decoder=1),
        {"validation": 64, "test": 128},
        forecast=16,
        samples=4,
    ),
    Scale.SMALL: Setting(
        96,
        30,
        Size(dim=64, heads=4, encoder=1, decoder=2),
        {"validation": 512, "test": 1024},
        forecast=64,
        samples=16,
    ),
    Scale.BASE: Setting(
        336,
        100,
        Size(dim=256, heads=8, encoder=3, decoder=3, expansion=4),
        {"validation": 1024, "test": 2048},
        forecast=256,
        samples=32,
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=150, batch_size=16, learning_rate=4e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=500, batch_size=32, learning_rate=7e-3),
    Scale.BASE: Recipe(
        steps=4000,
        batch_size=64,
        learning_rate=5e-4,
        warmup_steps=300,
        evaluations=8,
        precision="bfloat16",
    ),
}


@register_task(
    TaskInfo(
        id="forecasting-tokens",
        title="Forecasting by tokens",
        description="The next 24 hours of one of 55 consumers and sources of electric power, "
        "which is not named, hour by hour as quantised tokens, from the 96 hours before. With the "
        "control none the decoder sees only what it has written.",
        backbones={Pattern.CAUSAL_CROSS: "placed-encoder-decoder"},
        metrics=(
            Metric(
                "nll",
                "nat/hour",
                higher_is_better=False,
                help="Negative log-likelihood of an hour's bin, teacher-forced.",
            ),
            Metric(
                "crps",
                "% of power",
                higher_is_better=False,
                help="Continuous ranked probability score of sampled forecasts, mean over the "
                "hours, in hundredths of the consumer's or source's rated or largest power (16 "
                "test windows with 4 forecasts each at scale tiny, 64 with 16 at small, 256 with "
                "32 at base).",
                headline=False,
            ),
            Metric(
                "mae",
                "% of power",
                higher_is_better=False,
                help="Absolute error of the median of the same forecasts.",
                headline=False,
            ),
        ),
        references=(
            Reference(
                "counts",
                "nll",
                "Counts of bins given those of the hour before and of the same hour a day before.",
            ),
            Reference("last-day", "crps", "The same hour a day before, as the only forecast."),
            Reference("last-day-mae", "mae", "The same hour a day before."),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="simbench-profiles",
        paper="Ansari et al., Chronos: Learning the Language of Time Series (the setting)",
        url="https://arxiv.org/abs/2403.07815",
    )
)
class ForecastingTokens(TransductionTask):
    """Quantised past to quantised day."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        series = load(self.info.dataset)
        self.windows = {split: Windows(x, self.setting.past, DAY) for split, x in series.items()}
        self.bins = Bins(self.windows["train"], self.setting.bins)
        self.decoded = self.setting.forecast
        self.samples = self.setting.samples

    @property
    def data_hash(self) -> str:
        """Hash of the series and of how they become tokens."""
        setting = self.setting
        settings = (setting.past, setting.bins, sorted(setting.evaluated.items()))
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    @property
    def written(self) -> tuple[int, int]:
        """See `TransductionTask.written`: a day."""
        return DAY, DAY

    def length(self) -> tuple[int, int]:
        """Hours ahead and of the past."""
        return DAY, self.setting.past

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size = self.setting.size
        hours = torch.arange(float(self.setting.past + DAY))
        codes = hour_codes(hours, size.dim, POSITION_BASE)
        return PlacedEncoderDecoder(
            slots,
            size,
            tokens=FIRST_TOKEN + len(self.bins),
            features=None,
            source_places=codes[: self.setting.past],
            target_places=codes[self.setting.past :],
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Windows drawn uniformly from those of the training time."""
        drawn = self.windows["train"].random(self.recipe.batch_size, generator)
        return self.bins.batch(drawn.values, self.setting.past)

    def drawn(self, split: Split, seed: int) -> Drawn:
        """The windows that a split is evaluated on."""
        count = self.setting.evaluated[split]
        return self.windows[split].random(count, seeds.evaluation(seed, split))

    def problems(self, split: Split, seed: int) -> Batch:
        """See `TransductionTask.problems`."""
        return self.bins.batch(self.drawn(split, seed).values, self.setting.past)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihood of a split; on the test split also errors of sampled forecasts."""
        scores = {"nll": token_losses(model, self.problems(split, seed)).mean().item()}
        if split == "test":
            values, mean = (x[: self.decoded] for x in self.drawn(split, seed))
            truth, forecasts = values[:, -DAY:], self.forecasts(model, values, seed)
            missed = (forecasts.quantile(0.5, dim=1) - truth).abs()
            scores["crps"] = 100 * (mean * crps(forecasts, truth)).mean().item()
            scores["mae"] = 100 * (mean * missed).mean().item()
        return scores

    def forecasts(self, model: nn.Module, values: Tensor, seed: int) -> Tensor:
        """(B, S, 24) sampled forecasts of (B, P + 24) values, in means of the past."""
        assert isinstance(model, EncoderDecoder)
        batch = beside(model, self.bins.batch(values, self.setting.past))
        generator = seeds.evaluation(seed, "test", "samples")
        return self.bins.medians[sampled(model, batch, DAY, self.samples, generator)]

    def reduced(self) -> Self:
        """See `cab.Task.reduced`."""
        part = copy.copy(super().reduced())
        part.samples = 1
        return part

    def references(self, seed: int) -> dict[str, float]:
        """See `cab.Task.references`."""
        test, mean = self.drawn("test", seed)
        training = self.windows["train"].random(_COUNTED, seeds.generator(0, "statistics"))
        missed = mean * (last_day(test, DAY) - test[:, -DAY:]).abs()
        error = 100 * missed[: self.decoded].mean().item()
        return {
            "counts": Counts(training.values, self.bins, DAY).nll(test),
            "last-day": error,
            "last-day-mae": error,
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few test windows with the quantiles of sampled forecasts."""
        values = self.drawn("test", seed).values[:_SHOWN]
        quantiles = self.forecasts(model, values, seed).quantile(
            torch.tensor([0.1, 0.5, 0.9]), dim=1
        )
        names = ("10 %", "median", "90 %")
        panels = {
            f"window {i + 1}": {
                "series": values[i].tolist(),
                **{name: row[i].tolist() for name, row in zip(names, quantiles, strict=True)},
            }
            for i in range(len(values))
        }
        return [
            pictures.lines(
                "forecasts",
                f"Test series and the median and outer tenths of {self.samples} forecasts of their "
                "last 24 hours, in means of the past.",
                panels,
                x="hour",
                y="power",
                start=dict.fromkeys(names, self.setting.past),
            )
        ]
