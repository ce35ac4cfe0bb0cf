"""Cells that ended without a number, as sheets: they are part of what is known of an entry."""

from __future__ import annotations

import pandas as pd

from cab.sheets import columns
from cab.sheets.phases import PHASES
from cab.sheets.sheet import Line, Sheet

ALL = "all"
"""Stands for the phase or the length of a measurement that ended before it had one"""


def ended_runs(rows: pd.DataFrame) -> Sheet:
    """Trainings without a score: a line per entry, task, outcome and message.

    Args:
        rows: of one track, of the kind quality.
    """
    ended = rows[rows["status"] != "ok"]
    place = ["entry", "task", "status", "message"]
    grouped = ended.assign(message=ended["message"].fillna("")).groupby(place, observed=True)
    lines = []
    for (entry, task, status, message), own in grouped:
        seeds = ", ".join(str(int(seed)) for seed in sorted(own["seed"]))
        shown = (str(entry), str(task), str(status), seeds, str(message))
        lines.append(Line(shown, {}))
    headings = (
        columns.ENTRY, columns.TASK, columns.OUTCOME, columns.SEEDS_LIST, columns.MESSAGE,
    )  # fmt: skip
    return Sheet("Runs that ended without a score", headings, tuple(lines))


def ended_measurements(rows: pd.DataFrame) -> Sheet:
    """Measurements without a number: a line per entry, phase, length, outcome and message.

    Args:
        rows: of one track, of the kind efficiency.
    """
    ended = rows[rows["status"] != "ok"]
    found = ended.assign(
        message=ended["message"].fillna(""),
        phase=[PHASES.get(p, p) if isinstance(p, str) else ALL for p in ended["phase"]],
        length=ended["length_q"].fillna(-1).astype(int),
    )
    place = ["entry", "phase", "length", "status", "message"]
    lines = []
    for (entry, phase, length, status, message), own in found.groupby(place, observed=True):
        words = f"{length}" if length != -1 else ALL
        shown = (str(entry), str(phase), words, str(status), str(message), str(len(own)))
        lines.append(Line(shown, {"times": len(own)}))
    headings = (
        columns.ENTRY, columns.PHASE, columns.LENGTH_WORDS, columns.OUTCOME, columns.MESSAGE,
        columns.TIMES,
    )  # fmt: skip
    return Sheet("Measurements that ended without a number", headings, tuple(lines))
