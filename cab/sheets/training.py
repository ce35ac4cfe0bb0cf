"""What trainings took, as a sheet."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cab.label import label_words, short_label
from cab.scoring.intervals import mean_interval
from cab.sheets import columns
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import plus_minus

LOSS, TIME = "train_loss", "train_time"
"""Metrics of the rows"""


def runs_sheet(rows: pd.DataFrame) -> Sheet:
    """A line per entry: loss and time as means over seeds, checkpoints and sizes.

    Args:
        rows: of one task, of the phase train.
    """
    lines = []
    for entry, own in rows.groupby("entry", observed=True):
        label, seeds = label_words(own["label"].unique()), int(own["seed"].nunique())
        loss, seconds = (
            mean_interval(own[own["metric"] == name]["value"].to_numpy(float))
            for name in (LOSS, TIME)
        )
        data: dict[str, Value] = {
            "entry": str(entry), "label": label, "seeds": seeds,
            **interval_data("loss", loss), **interval_data("seconds", seconds),
        }  # fmt: skip
        shown = (
            str(entry), short_label(label), str(seeds), plus_minus(loss), plus_minus(seconds),
            _numbers(own["train_steps"], ""), _numbers(own["parameters_attention"]),
            _numbers(own["parameters_total"]),
        )  # fmt: skip
        lines.append(Line(shown, data))
    headings = (
        columns.ENTRY, columns.LABEL, columns.SEEDS, Column("last training loss", right=True),
        Column("time (s)", right=True), Column("checkpoint (step)", right=True),
        Column("parameters of the attention", right=True),
        Column("parameters of the model", right=True),
    )  # fmt: skip
    return Sheet("Training runs", headings, tuple(lines))


def _numbers(column: Iterable[float], mark: str = ",") -> str:
    """Every number that occurs, once, in order."""
    return ", ".join(f"{n:{mark}}" for n in sorted({int(n) for n in column if not pd.isna(n)}))
