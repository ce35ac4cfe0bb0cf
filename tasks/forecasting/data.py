"""Multivariate series in time order: splits, scaling, calendar features, windows.

The first 70 % of the rows train, the next 10 % validate, the last 20 % test, as in Informer (Zhou
et al. 2021), unless the data set has published bounds of its own. Every target lies inside its
split, and so does the history before it, unless a task asks for the published rule (``reach``).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cab import Batch
from cab.errors import DataError

TRAIN_TENTHS, TEST_TENTHS = 7, 2

TIME_FEATURES = 6
"""Sine and cosine of hour of day, day of week and day of year."""


@dataclass(frozen=True)
class Bounds:
    """The rows first:end of each split."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]

    @classmethod
    def of(cls, rows: int) -> Bounds:
        """70, 10 and 20 % of the rows."""
        first, second = rows * TRAIN_TENTHS // 10, rows - rows * TEST_TENTHS // 10
        return cls((0, first), (first, second), (second, rows))


@dataclass(frozen=True)
class WideTable:
    """A series as it was read: one row per time stamp, one column per variable."""

    name: str
    """Of the data set: the embedded one's, or that of the file without ``.csv``"""
    dates: pd.DatetimeIndex
    numbers: pd.DataFrame
    """float64"""


@dataclass(frozen=True)
class Series:
    """One contiguous stretch of a series."""

    values: Tensor
    """(T, K) float32, z-scored with the training stretch's mean and deviation"""
    times: Tensor
    """(T, TIME_FEATURES) float32"""

    def __len__(self) -> int:
        return len(self.values)

    def windows(self, starts: Tensor, history: int, horizon: int) -> Batch:
        """Windows that begin at the (B,) ``starts``.

        Returns:
            ``history`` (B, history, K), ``history_times`` (B, history, F), ``horizon_times``
            (B, horizon, F) and ``target`` (B, horizon, K).
        """
        rows = starts[:, None] + torch.arange(history + horizon)
        values, times = self.values[rows], self.times[rows]
        return {
            "history": values[:, :history],
            "history_times": times[:, :history],
            "horizon_times": times[:, history:],
            "target": values[:, history:],
        }

    def even_starts(self, window: int, count: int) -> Tensor:
        """At most ``count`` starts of windows, spread evenly over all that fit."""
        last = len(self) - window
        starts = torch.linspace(0, last, min(count, last + 1), dtype=torch.float64)
        return starts.round().long()


@dataclass(frozen=True)
class SeriesDataset:
    """Three stretches, one after the other in time."""

    columns: tuple[str, ...]
    train: Series
    validation: Series
    test: Series
    mean: Tensor
    """(K,) of the training stretch, in the columns' units"""
    deviation: Tensor
    """(K,) standard deviation of the training stretch; 1 where it is constant"""

    @classmethod
    def of(
        cls, table: WideTable, window: int, bounds: Bounds | None = None, reach: int = 0
    ) -> SeriesDataset:
        """Split and scale a table of numbers.

        Args:
            table: in time order.
            window: rows of the longest window that will be drawn.
            bounds: of the splits; None: 70, 10 and 20 %.
            reach: rows before validation and before test that the histories of their first windows
                may take. Targets never come from there.

        Raises:
            DataError: a split is too short for a window.
        """
        rows = len(table.numbers)
        bounds = bounds or Bounds.of(rows)
        kept = bounds.test[1]
        if rows < kept:
            raise DataError(f"it has {rows} rows, the published split of {table.name} has {kept}")
        stretches = {
            "train": bounds.train,
            "validation": (bounds.validation[0] - reach, bounds.validation[1]),
            "test": (bounds.test[0] - reach, bounds.test[1]),
        }
        for name, (begin, end) in stretches.items():
            if end - begin < window:
                raise DataError(
                    f"the {name} split has {end - begin} of {rows} rows, a window needs {window}"
                )
        raw = torch.from_numpy(table.numbers.to_numpy(dtype=np.float64, copy=True))
        known = raw[slice(*bounds.train)]
        mean, deviation = known.mean(0), known.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        values = ((raw - mean) / deviation).float()
        times = calendar_features(table.dates)
        return cls(
            columns=tuple(map(str, table.numbers.columns)),
            mean=mean,
            deviation=deviation,
            **{
                name: Series(values[begin:end], times[begin:end])
                for name, (begin, end) in stretches.items()
            },
        )

    def digest(self) -> str:
        """SHA-256 of the column names, the scale and every split's numbers."""
        sha = hashlib.sha256("\n".join(self.columns).encode())
        for tensor in (self.mean, self.deviation):
            sha.update(tensor.numpy().tobytes())
        for series in (self.train, self.validation, self.test):
            sha.update(len(series).to_bytes(8, "little"))
            sha.update(series.values.numpy().tobytes())
            sha.update(series.times.numpy().tobytes())
        return sha.hexdigest()


def calendar_features(dates: pd.DatetimeIndex) -> Tensor:
    """(T, TIME_FEATURES): where each time stamp stands in its day, week and year, on circles."""
    hour = (dates.hour + dates.minute / 60 + dates.second / 3600).to_numpy(dtype=np.float64)
    turns = (
        hour / 24,
        (dates.day_of_week + hour / 24) / 7,
        (dates.day_of_year - 1 + hour / 24) / 366,
    )
    angles = [2 * math.pi * torch.from_numpy(np.array(turn, dtype=np.float64)) for turn in turns]
    return torch.stack([wave(a) for a in angles for wave in (torch.sin, torch.cos)], dim=1).float()
