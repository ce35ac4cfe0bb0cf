"""What has been measured of one attention, or on one task: a line per task, or per entry."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from cab.controls import BASELINE
from cab.info import TaskInfo
from cab.label import short_label
from cab.patterns import Pattern
from cab.scoring.boards import headline_metrics
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import scores
from cab.scoring.results import Results, entry_labels
from cab.sheets import columns
from cab.sheets.notes import OF_SEEDS, speaks_of, stale_notes
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import NOTHING, arrow, plus_minus
from cab.track import Track

_NOTE = f"first metric of the index: {OF_SEEDS}"


def attention_sheets(results: Results, attention: str) -> list[Sheet]:
    """A sheet per track: the attention's tasks, its options and softmax beside it."""
    sheets = []
    for track, table in _tracks(results):
        own = table[table["attention"] == attention]
        lines = [
            _line(rows, table, str(task), str(entry), beside=True)
            for (entry, task), rows in own.groupby(["entry", "task"], observed=True)
        ]
        shown = _columns("entry", "task", BASELINE)
        about = [str(name) for name in own["entry"].unique()]
        notes = [n for n in stale_notes(results, track) if speaks_of(n, about)]
        sheets += _sheet(f"{attention} on {track.title}", shown, lines, track, notes)
    return sheets


def task_sheets(results: Results, info: TaskInfo) -> list[Sheet]:
    """A sheet per track: the entries that were measured on the task, the best one first."""
    sheets = []
    for track, table in _tracks(results):
        own = table[table["task"] == info.id]
        found = [
            _line(rows, table, info.id, str(entry), beside=False)
            for entry, rows in own.groupby("entry", observed=True)
        ]
        lines = sorted(found, key=_order)
        shown = _columns("entry")
        sheets += _sheet(f"{info.id} on {track.title}", shown, lines, track, [])
    return sheets


def _tracks(results: Results) -> Iterator[tuple[Track, pd.DataFrame]]:
    for setting in results.settings():
        for pattern in Pattern:
            track = setting.track(pattern)
            table = scores(results, track)
            if len(table):
                yield track, table


def _line(rows: pd.DataFrame, table: pd.DataFrame, task: str, entry: str, beside: bool) -> Line:
    """One line: of the task's first headline metric, or of the first metric that there is."""
    present = sorted(str(name) for name in rows["metric"].unique())
    headline = [name for name in headline_metrics().get(task, []) if name in present]
    metric = (headline or present)[0]
    own = rows[rows["metric"] == metric]
    higher = bool(own["higher_is_better"].iloc[0])
    label, value = entry_labels(own).get(entry, ""), _mean(own)
    data: dict[str, Value] = {
        "entry": entry, "task": task, "metric": metric, "label": label,
        "higher_is_better": higher, **interval_data("value", value),
        "seeds": int(own["seed"].nunique()),
    }  # fmt: skip
    shown = [entry, f"{metric} {arrow(higher)}", plus_minus(value)]
    if beside:
        base = table[table["entry"] == BASELINE]
        of_softmax = _mean(base[(base["task"] == task) & (base["metric"] == metric)])
        data |= interval_data(BASELINE, of_softmax)
        shown = [entry, task, *shown[1:], plus_minus(of_softmax)]
    last = own["recorded_at"].max()
    day = NOTHING if pd.isna(last) else f"{last:%Y-%m-%d}"
    shown += [str(data["seeds"]), short_label(label), day]
    return Line(tuple(shown), data)


def _mean(rows: pd.DataFrame) -> Interval:
    return mean_interval(rows["value"].to_numpy(dtype=float))


def _columns(*names: str) -> tuple[Column, ...]:
    """Of the words that lead, the value, softmax's where it is asked for, and where it is from."""
    leading = [Column(name) for name in names if name != BASELINE]
    beside = [Column(BASELINE, right=True)] if BASELINE in names else []
    return (
        *leading, columns.METRIC, columns.VALUE, *beside,
        columns.SEEDS, columns.LABEL.kept(0), Column("last", keep=1),
    )  # fmt: skip


def _sheet(
    title: str,
    columns: tuple[Column, ...],
    lines: list[Line],
    track: Track,
    notes: list[str],
) -> list[Sheet]:
    if not lines:
        return []
    return [Sheet(title, columns, tuple(lines), {**track.about}, (_NOTE, *notes))]


def _order(line: Line) -> tuple[str, float, str]:
    """By metric, from the best down."""
    value, metric = line.data["value"], str(line.data["metric"])
    number = float(value) if isinstance(value, int | float) else float("inf")
    sign = -1.0 if line.data["higher_is_better"] else 1.0
    return metric, sign * number, str(line.data["entry"])
