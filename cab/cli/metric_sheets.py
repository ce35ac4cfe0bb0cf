"""Raw scores of one metric as sheets, a task each, beside what they are read against."""

from __future__ import annotations

from collections.abc import Collection

from cab.cli.sheet import Column, Line, Sheet, Value, interval_data
from cab.cli.standings import kept
from cab.cli.tables import plus_minus
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import scores
from cab.scoring.reference_lines import reference_lines
from cab.scoring.results import Results


def metric_sheets(
    results: Results,
    metric: str,
    pattern: str,
    scale: str,
    device: str,
    tasks: Collection[str] = (),
    grade: str | None = None,
) -> list[Sheet]:
    """Scores of one metric, or numbers of one analysis, for every task that reports it."""
    table = scores(results, pattern, scale, device)
    if metric not in set(table["metric"]):
        table = scores(results, pattern, scale, device, phase="analysis")
    table = table[table["metric"] == metric]
    sheets = []
    for task in sorted(str(name) for name in table["task"].unique()):
        if tasks and task not in tasks:
            continue
        part = table[table["task"] == task]
        higher = bool(part["higher_is_better"].iloc[0])
        rows = []
        for entry, own in part.groupby("entry", observed=True):
            attention, its = str(own["attention"].iloc[0]), str(own["grade"].iloc[0])
            if kept(attention, its, grade):
                found = mean_interval(own["value"].to_numpy(dtype=float))
                rows.append((str(entry), attention, its, found))
        rows.sort(key=lambda r: (-r[3].value if higher else r[3].value, r[0]))
        lines = tuple(_metric_line(place, *row) for place, row in enumerate(rows, start=1))
        columns = (
            Column("#", right=True),
            Column("attention"),
            Column("grade"),
            Column(metric, right=True),
            Column("seeds", right=True),
        )
        arrow = "↑" if higher else "↓"
        about: dict[str, Value] = {
            "pattern": pattern, "scale": scale, "device": device, "task": task, "metric": metric,
        }  # fmt: skip
        title = f"{pattern}, {metric} {arrow} on {task} ({scale}, {device})"
        notes = ["mean ± half of the 95 % interval over seeds"]
        notes += [
            f"{line.name}: {plus_minus(line.value)}"
            for line in reference_lines(results, pattern, scale, device, task)
            if line.metric == metric
        ]
        sheets.append(Sheet(title, columns, lines, about, tuple(notes)))
    return sheets


def _metric_line(place: int, entry: str, attention: str, grade: str, value: Interval) -> Line:
    data: dict[str, Value] = {
        "rank": place, "entry": entry, "attention": attention, "grade": grade,
        **interval_data("value", value), "seeds": value.n,
    }  # fmt: skip
    return Line((str(place), entry, grade, plus_minus(value), str(value.n)), data)
