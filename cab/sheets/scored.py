"""Test scores of several tasks as one sheet: a line per metric with the entries side by side where
there is room for all of them, else a line per metric and entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cab.label import Label, short_label
from cab.registries import TASKS
from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.quality import scores
from cab.scoring.reference_lines import ReferenceLine, reference_lines
from cab.scoring.results import Results, entry_labels
from cab.sheets import columns
from cab.sheets.notes import OF_SEEDS
from cab.sheets.scores import metrics_in
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import arrow, plus_minus
from cab.track import Track

TITLE = "Test scores"
NOTE = f"{OF_SEEDS}; bold: separated from all others"
_SCORE = Column("score", right=True)


@dataclass(frozen=True)
class _Scored:
    """One metric of one task, of every entry."""

    task: str
    metric: str
    higher: bool
    values: Mapping[str, Interval]
    references: Sequence[ReferenceLine]

    @property
    def best(self) -> str | None:
        """The entry that is better than every other beyond the intervals, if there is one."""
        finite = [name for name, v in self.values.items() if math.isfinite(v.value)]
        if len(finite) < 2:
            return None
        sign = 1 if self.higher else -1
        first = max(finite, key=lambda name: sign * self.values[name].value)
        others = (self.values[name] for name in finite if name != first)
        return None if any(self.values[first].overlaps(v) for v in others) else first

    def data(self, entry: str) -> dict[str, Value]:
        """For machines."""
        return {
            "task": self.task, "metric": self.metric, "higher_is_better": self.higher,
            "entry": entry, **interval_data("score", self.values[entry]),
        }  # fmt: skip


def scored_sheet(
    results: Results, track: Track, entries: Sequence[str], width: int
) -> Sheet | None:
    """Mean scores over seeds; None where nothing is scored.

    Args:
        results: current rows.
        track: to show.
        entries: in their order.
        width: characters that a line may take with the entries side by side.
    """
    table = scores(results, track)
    table = table[table["entry"].isin(list(entries))]
    if table.empty:
        return None
    labels = entry_labels(table)
    found = list(_scored(results, track, entries))
    beside = _beside(found, entries, labels)
    return beside if beside.width <= width else _below(found, labels)


def _scored(results: Results, track: Track, entries: Sequence[str]) -> Iterator[_Scored]:
    table = scores(results, track)
    table = table[table["entry"].isin(list(entries))]
    infos = {info.id: info for info in TASKS.infos()}
    for task in sorted(str(name) for name in table["task"].unique()):
        part = table[table["task"] == task]
        references = reference_lines(results, track, task)
        for metric in metrics_in(part, infos.get(task)):
            rows = part[part["metric"] == metric.name]
            values = {
                entry: mean_interval(rows[rows["entry"] == entry]["value"].to_numpy(float))
                for entry in entries
            }
            own = [line for line in references if line.metric == metric.name]
            higher = bool(rows["higher_is_better"].iloc[0])
            yield _Scored(task, metric.name, higher, values, own)


def _beside(found: Sequence[_Scored], entries: Sequence[str], labels: Mapping[str, str]) -> Sheet:
    headings = [Column(_titled(entry, labels.get(entry, "")), right=True) for entry in entries]
    lines, task = [], ""
    blank = ("",) * len(entries)
    for one in found:
        if one.task != task:
            task = one.task
            lines.append(Line((task, *blank), {"task": task}, strong=frozenset({0})))
        shown = tuple(plus_minus(one.values[entry]) for entry in entries)
        strong = frozenset(n + 1 for n, entry in enumerate(entries) if entry == one.best)
        data: dict[str, Value] = {"task": task, "metric": one.metric}
        lines.append(Line((f"  {one.metric} {arrow(one.higher)}", *shown), data, strong))
        lines += [
            Line((f"    {line.name}: {plus_minus(line.value)}", *blank), dict(data))
            for line in one.references
        ]
    return Sheet(TITLE, (columns.METRIC, *headings), tuple(lines), notes=(NOTE,))


def _below(found: Sequence[_Scored], labels: Mapping[str, str]) -> Sheet:
    lines = []
    above = ("", "")
    for one in found:
        place = (one.task, f"{one.metric} {arrow(one.higher)}")
        for entry in one.values:
            # What the line above says is not said again.
            words = tuple("" if w == a else w for w, a in zip(place, above, strict=True))
            words = place if place[0] != above[0] else words
            above = place
            shown = (*words, entry, short_label(labels.get(entry, "")),
                     plus_minus(one.values[entry]))  # fmt: skip
            strong = frozenset({len(shown) - 1} if entry == one.best else ())
            lines.append(Line(shown, one.data(entry), strong))
        lines += [
            Line(("", "", line.name, "", plus_minus(line.value)), {"reference": line.name})
            for line in one.references
        ]
    headings = (columns.TASK, columns.METRIC, columns.ENTRY, columns.LABEL, _SCORE)
    return Sheet(TITLE, headings, tuple(lines), notes=(NOTE,))


def _titled(entry: str, label: str) -> str:
    """Who measured an entry stands beside its name where it was not the user."""
    usual = label in ("", Label.SELF_REPORTED.value)
    return entry if usual else f"{entry} ({short_label(label)})"
