"""Multivariate series in time order: splits, scaling, calendar features, windows.

The first 70 % of the rows train, the next 10 % validate, the last 20 % test, as in Informer (Zhou
et al. 2021). Every window lies wholly inside its split, so no value that was a training target is
seen again, not even as history.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cab import Batch
from cab.errors import DataError
from tasks.data.embedded import dataset as embedded_dataset

CSV_LAYOUT = (
    "expected a folder with exactly one .csv: first column 'date', every other column numeric "
    "without gaps, rows in time order"
)

TRAIN_TENTHS, TEST_TENTHS = 7, 2

TIME_FEATURES = 6
"""Sine and cosine of hour of day, day of week and day of year."""


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
    def of(cls, dates: pd.DatetimeIndex, frame: pd.DataFrame, window: int) -> SeriesDataset:
        """Split and scale a table of numbers.

        Args:
            dates: time stamp of each row, ascending.
            frame: one float column per variable.
            window: rows of the longest window that will be drawn.

        Raises:
            DataError: a split is too short for a window.
        """
        rows = len(frame)
        first = rows * TRAIN_TENTHS // 10
        second = rows - rows * TEST_TENTHS // 10
        bounds = {"train": (0, first), "validation": (first, second), "test": (second, rows)}
        for name, (begin, end) in bounds.items():
            if end - begin < window:
                raise DataError(
                    f"the {name} split has {end - begin} of {rows} rows, a window needs {window}"
                )
        raw = torch.from_numpy(frame.to_numpy(dtype=np.float64, copy=True))
        mean = raw[:first].mean(0)
        deviation = raw[:first].std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        values = ((raw - mean) / deviation).float()
        times = calendar_features(dates)
        stretches = {
            name: Series(values[begin:end], times[begin:end])
            for name, (begin, end) in bounds.items()
        }
        return cls(columns=tuple(frame.columns), mean=mean, deviation=deviation, **stretches)

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


def load_series(dataset: str, data_dir: Path | None, window: int) -> SeriesDataset:
    """The embedded series of that name, or the one in ``data_dir``.

    Args:
        dataset: an embedded data set with a column ``timestamp``, every other column a variable.
        data_dir: folder to read instead; see `read_folder`.
        window: rows of the longest window that will be drawn.

    Raises:
        DataError: data missing, altered, too short or of another layout.
    """
    if data_dir is not None:
        return read_folder(data_dir, window)
    frame = embedded_dataset(dataset).table().to_pandas()
    dates = pd.DatetimeIndex(frame.pop("timestamp"))
    return SeriesDataset.of(dates, frame.astype(np.float64), window)


def read_folder(folder: Path, window: int) -> SeriesDataset:
    """The wide CSV of ETT, ECL and Weather, as Informer publishes them.

    Raises:
        DataError: not exactly one CSV, or one of another layout; says what is wrong with it.
    """
    paths = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if len(paths) != 1:
        held = ", ".join(path.name for path in paths) or "none"
        raise DataError(f"{folder} has {len(paths)} .csv files ({held}); {CSV_LAYOUT}")
    path = paths[0]
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({reason}); {CSV_LAYOUT}") from error
    if len(table.columns) < 2 or table.columns[0] != "date":
        raise DataError(f"{path} begins with columns {list(table.columns[:2])}; {CSV_LAYOUT}")
    dates = pd.to_datetime(table["date"], errors="coerce")
    if dates.isna().any():
        raise DataError(f"{path}: row {int(dates.isna().argmax())} has no date; {CSV_LAYOUT}")
    if not dates.is_monotonic_increasing:
        raise DataError(f"{path}: the dates are not in order; {CSV_LAYOUT}")
    numbers = table.drop(columns="date")
    for name, column in numbers.items():
        if not pd.api.types.is_numeric_dtype(column) or not np.isfinite(column).all():
            raise DataError(f"{path}: column {name!r} is not all finite numbers; {CSV_LAYOUT}")
    try:
        return SeriesDataset.of(pd.DatetimeIndex(dates), numbers.astype(np.float64), window)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
