"""Sheets that say which code measured their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from cab.scoring.origin import TOLD_BY, Origin, origin_of
from cab.scoring.results import Results
from cab.sheets.sheet import Sheet


def with_origins(sheets: Sequence[Sheet], results: Results) -> list[Sheet]:
    """The sheets of tracks, each with the versions and commits of the rows behind it."""
    return [
        replace(sheet, origin=partial(_origin, sheet, results.rows))
        if {"scale", "device"} <= sheet.about.keys()
        else sheet
        for sheet in sheets
    ]


def _origin(sheet: Sheet, rows: pd.DataFrame) -> Origin:
    return origin_of(_rows(sheet, rows))


def _rows(sheet: Sheet, rows: pd.DataFrame) -> pd.DataFrame:
    """Those of its track, task and entries; what names none of the rows' patterns is over all."""
    wanted = np.ones(len(rows), dtype=bool)
    for column in ("scale", "device", "pattern", "task"):
        value = sheet.about.get(column)
        if value is None:
            continue
        own = (rows[column] == value).to_numpy()
        if column != "pattern" or own.any():
            wanted &= own
    entries = {line.data["entry"] for line in sheet.lines if "entry" in line.data}
    if entries:
        wanted &= rows["entry"].isin(entries).to_numpy()
    return rows.loc[wanted, [name for name in TOLD_BY if name in rows]]
