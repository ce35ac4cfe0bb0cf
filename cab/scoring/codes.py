"""Columns as numbers: grouping a million rows by words takes too long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

_MOST = 2**62
"""What a number of 64 bits holds with room to spare"""


def codes_of(column: pd.Series) -> Codes:
    """A number for every distinct value, -1 for a missing one."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy().astype(np.int64)
    return pd.factorize(column)[0].astype(np.int64)


def group_codes(columns: Sequence[Codes]) -> Codes:
    """A number from 0 for every distinct combination of codes."""
    combined, bound = np.zeros(len(columns[0]), dtype=np.int64), 1
    for codes in columns:
        size = int(codes.max(initial=0)) + 2
        if bound * size > _MOST:
            combined = pd.factorize(combined)[0].astype(np.int64)
            bound = int(combined.max(initial=0)) + 1
        combined = combined * size + codes + 1
        bound *= size
    return pd.factorize(combined)[0].astype(np.int64)
