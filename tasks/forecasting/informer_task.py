"""Forecasting with Informer, the backbone with which CAB measured it.

CAB found Informer slightly better without attention than with it: a convolution embeds the values,
another one distils them, and the decoder has the last values as label tokens, so that the encoder's
self attention and the decoder's cross attention are paths among others. The task is here to repeat
that; whether a slot tells attention from none is read off its numbers like any other task's.
"""

from __future__ import annotations

from torch import nn

from cab import Metric, Pattern, Recipe, Scale, Slots, TaskInfo, register_task
from tasks.forecasting.data import TIME_FEATURES, WideTable
from tasks.forecasting.informer import Informer, distilled
from tasks.forecasting.published import Lengths
from tasks.forecasting.series_task import (
    Geometry,
    SeriesTask,
    published_geometry,
    published_recipe,
)

_GEOMETRIES = {
    Scale.TINY: Geometry(
        Lengths(label=48, horizon=24, history=96),
        dim=32,
        heads=4,
        encoder_layers=2,
        decoder_layers=1,
        expansion=2,
        dropout=0.05,
        windows={"validation": 64, "test": 128},
    ),
    Scale.SMALL: Geometry(
        Lengths(label=48, horizon=24, history=96),
        dim=64,
        heads=4,
        encoder_layers=2,
        decoder_layers=1,
        expansion=4,
        dropout=0.05,
        windows={"validation": 128, "test": 512},
    ),
    Scale.BASE: Geometry(
        Lengths(label=84, horizon=48, history=168),
        dim=256,
        heads=8,
        encoder_layers=2,
        decoder_layers=1,
        expansion=4,
        dropout=0.05,
        windows={"validation": 512, "test": 2048},
    ),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=16, learning_rate=2e-3, betas=(0.9, 0.999)),
    Scale.SMALL: Recipe(
        steps=250, batch_size=16, learning_rate=1e-3, betas=(0.9, 0.999), evaluations=5
    ),
    Scale.BASE: Recipe(
        steps=1000, batch_size=32, learning_rate=2e-4, betas=(0.9, 0.999), evaluations=10
    ),
}


@register_task(
    TaskInfo(
        id="forecasting-informer",
        title="Forecasting with Informer",
        description="24 hours of New York City weather, 24 variables, from the 96 hours before, "
        "with CAB's backbone: self-attention distilling in the encoder, label tokens in the "
        "decoder. Attention brought nothing there in CAB either.",
        backbones={Pattern.NONCAUSAL_CROSS: "informer", Pattern.NONCAUSAL_SELF: "informer"},
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
        retired={
            Pattern.NONCAUSAL_SELF: "the decoder has the last values as label tokens, beside what "
            "self attention in the encoder could bring: mse of softmax 0.715 ± 0.072, of none "
            "0.702 ± 0.061, a gap of -0.5 spreads at scale small, three seeds on a CPU. The task "
            "forecasting measures self attention on these data",
            Pattern.NONCAUSAL_CROSS: "the label tokens, which a convolution reads, have what cross "
            "attention could bring: mse of softmax 0.715 ± 0.072, of none 0.669 ± 0.031, a gap of "
            "-1.6 spreads at scale small, three seeds on a CPU. The task forecasting measures "
            "cross attention on these data",
        },
        paper="Zhou et al., Informer: Beyond Efficient Transformer for Long Sequence Time-Series "
        "Forecasting",
        url="https://arxiv.org/abs/2012.07436",
    )
)
class ForecastingInformer(SeriesTask):
    """Weather, or the series of a folder, with the published backbone."""

    target = "JFK_temp"

    def choose_geometry(self, table: WideTable) -> Geometry:
        """See `SeriesTask.choose_geometry`."""
        return published_geometry(table) if self.scale is Scale.PAPER else _GEOMETRIES[self.scale]

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        if self.scale is Scale.PAPER:
            return published_recipe(self.training_windows)
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`; cross attention reads the distilled history."""
        if self.pattern is Pattern.NONCAUSAL_SELF:
            return self.history, self.history
        label = self.geometry.lengths.label
        return label + self.horizon, distilled(self.history, self.geometry.encoder_layers - 1)

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size = self.geometry
        return Informer(
            slots,
            history=self.history,
            label=size.lengths.label,
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
