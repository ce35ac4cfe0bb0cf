"""The series that CAB forecasts and their published settings.

Lengths are those of CAB's scripts, the splits of ETT and the target columns those of Informer
(Zhou et al. 2021, section 4 and code). CAB trains every set twice, on all columns (multivariate)
and on the target column alone (univariate), and averages the errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from tasks.forecasting.data import Bounds, WideTable

_TRAIN_MONTHS, _OTHER_MONTHS = 12, 4
_MONTH_HOURS = 30 * 24


@dataclass(frozen=True)
class Lengths:
    """Steps of a window."""

    label: int
    """Last steps of the history that begin the decoder's input, at most ``history``"""
    horizon: int
    history: int


@dataclass(frozen=True)
class Published:
    """One data set's settings."""

    target: str
    """The column of the univariate runs"""
    multivariate: Lengths
    univariate: Lengths
    encoder_layers: int
    decoder_layers: int
    hourly_rows: int = 0
    """Rows an hour of a set that is split by months; 0: it is split by shares"""

    def lengths(self, variables: int) -> Lengths:
        """For a table with that many columns."""
        return self.univariate if variables == 1 else self.multivariate

    def bounds(self) -> Bounds | None:
        """Published rows of the splits: 12 months of 30 days, then 4 and 4; None: by shares."""
        if not self.hourly_rows:
            return None
        month = _MONTH_HOURS * self.hourly_rows
        first = _TRAIN_MONTHS * month
        second, end = first + _OTHER_MONTHS * month, first + 2 * _OTHER_MONTHS * month
        return Bounds((0, first), (first, second), (second, end))


_ETTM = Published("OT", Lengths(384, 672, 672), Lengths(384, 672, 384), 2, 1, hourly_rows=4)
_SETS = {
    "etth1": Published("OT", Lengths(336, 720, 336), Lengths(168, 720, 168), 2, 1, hourly_rows=1),
    "etth2": Published("OT", Lengths(336, 720, 720), Lengths(336, 720, 336), 2, 1, hourly_rows=1),
    "ettm1": _ETTM,
    "ettm2": _ETTM,
    "ecl": Published("MT_320", Lengths(336, 960, 336), Lengths(336, 960, 336), 3, 2),
    "wth": Published("WetBulbCelsius", Lengths(336, 720, 720), Lengths(336, 720, 720), 3, 2),
}
_OTHER = Published("", Lengths(336, 720, 336), Lengths(168, 720, 168), 2, 1)
"""For a series that is none of these: the lengths of ETTh1"""


def published(name: str) -> Published:
    """The settings that go with a file's name (without ``.csv``), in any case."""
    return _SETS.get(name.casefold(), _OTHER)


def target_column(table: WideTable, fallback: str = "") -> str:
    """The column whose errors are also reported alone: the published one, or the last."""
    columns = pd.Index(table.numbers.columns)
    for name in (published(table.name).target, fallback):
        if name in columns:
            return name
    return str(columns[-1])
