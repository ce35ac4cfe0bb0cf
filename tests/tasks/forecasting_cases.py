"""A wide CSV to forecast."""

from pathlib import Path

import numpy as np
import pandas as pd

from cab import Pattern

PATTERNS = [Pattern.NONCAUSAL_CROSS, Pattern.NONCAUSAL_SELF]


def table(rows: int = 2000) -> pd.DataFrame:
    """Two variables with different scales, hourly."""
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "date": pd.date_range("2016-07-01", periods=rows, freq="h").astype(str),
            "load": 300 + 50 * generator.standard_normal(rows).cumsum(),
            "OT": generator.standard_normal(rows),
        }
    )


def write(folder: Path, frame: pd.DataFrame, name: str = "load.csv") -> Path:
    frame.to_csv(folder / name, index=False)
    return folder
