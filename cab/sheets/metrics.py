"""Raw scores of one metric as sheets, a task each, beside what they are read against."""

from __future__ import annotations

from collections.abc import Collection

from cab.label import short_label
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import scores
from cab.scoring.reference_lines import reference_lines
from cab.scoring.results import Results, entry_labels
from cab.sheets import columns
from cab.sheets.choice import ALL, Shown
from cab.sheets.notes import OF_SEEDS
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import arrow, plus_minus
from cab.track import Track


def metric_sheets(
    results: Results,
    metric: str,
    track: Track,
    tasks: Collection[str] = (),
    shown: Shown = ALL,
) -> list[Sheet]:
    """Scores of one metric, or numbers of one analysis, for every task that reports it."""
    table = scores(results, track)
    if metric not in set(table["metric"]):
        table = scores(results, track, phase="analysis")
    table = table[table["metric"] == metric]
    sheets = []
    for task in sorted(str(name) for name in table["task"].unique()):
        if tasks and task not in tasks:
            continue
        part = table[table["task"] == task]
        higher = bool(part["higher_is_better"].iloc[0])
        rows, labels = [], entry_labels(part)
        for entry, own in part.groupby("entry", observed=True):
            attention, its = str(own["attention"].iloc[0]), str(own["grade"].iloc[0])
            label = labels.get(str(entry), "")
            if shown.keeps(attention, its, label):
                found = mean_interval(own["value"].to_numpy(dtype=float))
                rows.append((str(entry), attention, its, label, found))
        rows.sort(key=lambda r: (-r[4].value if higher else r[4].value, r[0]))
        lines = tuple(_metric_line(place, *row) for place, row in enumerate(rows, start=1))
        headings = (
            columns.RANK, columns.ENTRY, columns.LABEL, columns.GRADE,
            Column(metric, right=True, more=higher, number="value"), columns.SEEDS,
        )  # fmt: skip
        about: dict[str, Value] = {**track.about, "task": task, "metric": metric}
        title = track.titled(f"{track.pattern}, {metric} {arrow(higher)} on {task}")
        notes = [OF_SEEDS]
        notes += [
            f"{line.name}: {plus_minus(line.value)}"
            for line in reference_lines(results, track, task)
            if line.metric == metric
        ]
        sheets.append(Sheet(title, headings, lines, about, tuple(notes)))
    return sheets


def _metric_line(
    place: int, entry: str, attention: str, grade: str, label: str, value: Interval
) -> Line:
    data: dict[str, Value] = {
        "rank": place, "entry": entry, "attention": attention, "label": label, "grade": grade,
        **interval_data("value", value), "seeds": value.n,
    }  # fmt: skip
    words = (str(place), entry, short_label(label), grade, plus_minus(value), str(value.n))
    return Line(words, data)
