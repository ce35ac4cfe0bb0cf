"""Long-horizon forecasting of many variables at once (CAB section 4, LSTF).

At the small scales a day of hourly weather from four days of it; on the test split at scale small,
repeating the last value scores an mse of 0.95, the last day 1.36. The backbones are built so that
their slots matter; CAB's own backbone, in which attention brings nothing, is the task
`forecasting-informer`. At scale ``paper`` these backbones take Informer's width, depth, window
lengths and recipe.

CAB's univariate results come from models that see and predict one column. Give a CSV of the date
and that column to repeat them; ``mse_target`` and ``mae_target`` are cheaper and another thing,
the errors of the model of all columns on that one.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from cab import Metric, Pattern, Recipe, Scale, Slots, TaskInfo, register_task
from tasks.forecasting.data import TIME_FEATURES, WideTable
from tasks.forecasting.model import EncoderDecoder, MaskedEncoder
from tasks.forecasting.published import Lengths
from tasks.forecasting.series_task import (
    Geometry,
    SeriesTask,
    published_geometry,
    published_recipe,
)

_GEOMETRIES = {
    Scale.TINY: Geometry(
        Lengths(label=0, horizon=24, history=96),
        dim=32,
        heads=4,
        encoder_layers=1,
        decoder_layers=1,
        expansion=2,
        dropout=0.1,
        windows={"validation": 64, "test": 128},
    ),
    Scale.SMALL: Geometry(
        Lengths(label=0, horizon=24, history=96),
        dim=64,
        heads=4,
        encoder_layers=2,
        decoder_layers=2,
        expansion=2,
        dropout=0.1,
        windows={"validation": 128, "test": 512},
    ),
    Scale.BASE: Geometry(
        Lengths(label=0, horizon=48, history=168),
        dim=128,
        heads=8,
        encoder_layers=2,
        decoder_layers=2,
        expansion=4,
        dropout=0.3,
        windows={"validation": 512, "test": 2048},
    ),
}

_MASKED_LAYERS = {Scale.TINY: 2, Scale.SMALL: 3, Scale.BASE: 3}

_RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=16, learning_rate=2e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(steps=400, batch_size=16, learning_rate=1e-3, betas=(0.9, 0.999)),
    Scale.BASE: Recipe(
        steps=400, batch_size=32, learning_rate=5e-4, betas=(0.9, 0.999), evaluations=8
    ),
}


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
            Metric(
                "mse_target",
                "sd^2",
                higher_is_better=False,
                help="Of the target column alone (ETT: OT, ECL: MT_320, Weather: WetBulbCelsius, "
                "embedded: JFK_temp, otherwise the last), from the model of all columns; CAB's "
                "univariate models see that column only.",
                headline=False,
            ),
            Metric(
                "mae_target",
                "sd",
                higher_is_better=False,
                help="Absolute error of the target column alone; see mse_target.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="nyc-weather",
        data_dir="a folder with exactly one .csv, as ETT, ECL and Weather are published "
        "(ETTh1.csv, ETTh2.csv, ETTm1.csv, ECL.csv or WTH.csv; at scale paper the name decides on "
        "the lengths): first column 'date', every other column numeric without gaps, rows in time "
        "order. ETT is split into 12, 4 and 4 months as published, anything else into 70, 10 and "
        "20 % of the rows. A file with the date and the target column only is CAB's univariate run",
        paper="Zhang et al., CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",
        url="https://arxiv.org/abs/2210.07661",
    )
)
class Forecasting(SeriesTask):
    """Weather, or the series of a folder."""

    target = "JFK_temp"

    def choose_geometry(self, table: WideTable) -> Geometry:
        """See `SeriesTask.choose_geometry`.

        The masked encoder has no decoder; at scale ``paper`` it is as deep as both of Informer's
        stacks together.
        """
        geometry = (
            published_geometry(table) if self.scale is Scale.PAPER else _GEOMETRIES[self.scale]
        )
        if self.pattern is Pattern.NONCAUSAL_CROSS:
            return geometry
        whole = geometry.encoder_layers + geometry.decoder_layers
        layers = _MASKED_LAYERS.get(self.scale, whole)
        return replace(geometry, encoder_layers=layers, decoder_layers=0)

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        if self.scale is Scale.PAPER:
            return published_recipe(self.training_windows)
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        if self.pattern is Pattern.NONCAUSAL_CROSS:
            return self.horizon, self.history
        return self.history + self.horizon, self.history + self.horizon

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size = self.geometry
        if self.pattern is Pattern.NONCAUSAL_CROSS:
            return EncoderDecoder(
                slots,
                history=self.history,
                horizon=self.horizon,
                variables=len(self.data.columns),
                features=TIME_FEATURES,
                dim=size.dim,
                heads=size.heads,
                encoder_layers=size.encoder_layers,
                decoder_layers=size.decoder_layers,
                expansion=size.expansion,
                dropout=size.dropout,
            )
        return MaskedEncoder(
            slots,
            history=self.history,
            horizon=self.horizon,
            variables=len(self.data.columns),
            features=TIME_FEATURES,
            dim=size.dim,
            heads=size.heads,
            layers=size.encoder_layers,
            expansion=size.expansion,
            dropout=size.dropout,
        )
