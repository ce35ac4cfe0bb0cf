"""Reads the wide CSV in which ETT, ECL and Weather are published with Informer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cab.errors import DataError
from tasks.forecasting.data import WideTable

CSV_LAYOUT = (
    "expected a folder with exactly one .csv: first column 'date', every other column numeric "
    "without gaps, rows in time order"
)


def read_folder(folder: Path) -> WideTable:
    """The series in the folder's CSV.

    Raises:
        DataError: the first of `folder_problems`.
    """
    for problem in folder_problems(folder):
        raise DataError(problem)
    path = next(folder.glob("*.csv"))
    table = pd.read_csv(path)
    dates = pd.DatetimeIndex(pd.to_datetime(table.pop("date")))
    return WideTable(path.stem, dates, table.astype(np.float64))


def folder_problems(folder: Path) -> Iterator[str]:
    """Everything in which a folder is not a published series, one line each."""
    paths = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    if len(paths) != 1:
        held = ", ".join(path.name for path in paths) or "none"
        yield f"{folder} has {len(paths)} .csv files ({held}); {CSV_LAYOUT}"
        return
    path = paths[0]
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        yield f"{path} cannot be read ({reason}); {CSV_LAYOUT}"
        return
    if table.columns[0] != "date":
        yield f"{path} begins with column {table.columns[0]!r}; {CSV_LAYOUT}"
    else:
        yield from (f"{path}: {fault}; {CSV_LAYOUT}" for fault in _date_faults(table["date"]))
    numbers = table.iloc[:, 1:]
    if numbers.columns.empty:
        yield f"{path} has one column only; {CSV_LAYOUT}"
    if table.empty:
        yield f"{path} has no rows; {CSV_LAYOUT}"
    for name, column in numbers.items():
        if not pd.api.types.is_numeric_dtype(column) or not np.isfinite(column).all():
            yield f"{path}: column {name!r} is not all finite numbers; {CSV_LAYOUT}"


def _date_faults(column: pd.Series[str]) -> Iterator[str]:
    dates = pd.to_datetime(column, errors="coerce")
    missing = dates.isna()
    if missing.any():
        yield f"row {int(missing.argmax())} has no date"
    if not dates[~missing].is_monotonic_increasing:
        yield "the dates are not in order"
