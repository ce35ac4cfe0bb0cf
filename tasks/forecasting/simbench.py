"""Forecasting electric load and renewable generation, with the backbones of `forecasting`.

A day ahead from four days of history, in hours (means of four quarter hours). Consumers follow the
clock, which the models know from the time stamps alone, but each in its own way; sun, wind and
water follow nothing that a time stamp tells. On the test split at scale small, repeating the last
value scores an mse of 1.09, the last day 0.68.
"""

from __future__ import annotations

import pandas as pd

from cab import Metric, Pattern, Scale, TaskInfo, register_task
from tasks.forecasting.data import WideTable
from tasks.forecasting.task import Forecasting


@register_task(
    TaskInfo(
        id="forecasting-simbench",
        title="Forecasting electric power",
        description="24 hours of the power of 27 consumers and 28 renewable sources from the 96 "
        "hours before.",
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
                help="Of one column alone, the farm L1-A, from the model of all columns.",
                headline=False,
            ),
            Metric(
                "mae_target",
                "sd",
                higher_is_better=False,
                help="Absolute error of that column alone; see mse_target.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="simbench-profiles",
        paper="Meinecke et al., SimBench: A Benchmark Dataset of Electric Power Systems to Compare "
        "Innovative Solutions Based on Power Flow Analysis",
        url="https://doi.org/10.3390/en13123290",
    )
)
class ForecastingSimbench(Forecasting):
    """Profiles of a year, one column per consumer or source."""

    target = "L1-A"

    @classmethod
    def embedded_table(cls) -> WideTable:
        """Means by the hour."""
        quarters = super().embedded_table()
        hours = quarters.numbers.set_index(quarters.dates).resample("h").mean()
        return WideTable(quarters.name, pd.DatetimeIndex(hours.index), hours)
