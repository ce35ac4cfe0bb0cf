"""Two entries side by side as sheets: differences by task with a verdict, then costs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cab.scoring.boards import board
from cab.scoring.comparison import Comparison, comparison
from cab.scoring.cost import AXES, costs
from cab.scoring.crossover import ratio_of
from cab.scoring.intervals import Interval
from cab.scoring.paying import crossovers
from cab.scoring.ranks import ALPHA
from cab.scoring.results import Results, entry_labels
from cab.sheets import columns
from cab.sheets.costs import crossing_data, pays_note
from cab.sheets.notes import SAME, machine_notes, speaks_of, stale_notes
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.verdict import verdict
from cab.sheets.words import (
    NOTHING,
    amount,
    bounds,
    count_range,
    digits_of,
    factor_range,
    number,
    p_value,
    signed,
    times,
    unsure_notes,
)
from cab.track import Track


def comparison_sheets(results: Results, one: str, other: str, track: Track) -> list[Sheet]:
    """Quality, then cost; nothing where the two share nothing."""
    about: dict[str, Value] = {**track.about}
    sheets = []
    found = board(results, track)
    compared = comparison(found, one, other)
    if compared.tasks:
        notes = [f"{task} is not compared: no result of {who}" for task, who in
                 compared.lacking.items()]  # fmt: skip
        notes += [f"{task.task} is left out: it does not measure attention here"
                  for task in found.left_out]  # fmt: skip
        notes += [
            f"{task} is left out: it does not measure attention here" for task in found.retired
        ]
        notes += [
            n for n in stale_notes(results, track, found.retired) if speaks_of(n, (one, other))
        ]
        labels = {s.entry: s.label for s in found.standings}
        sheets.append(_quality(compared, track, about | _labels(labels, one, other), notes))
    of_cost = results.select(track, kind="efficiency")
    labels = entry_labels(of_cost if len(of_cost) else results.rows)
    cost = _costs(results, one, other, track, about | _labels(labels, one, other))
    return sheets + ([cost] if cost else [])


def _labels(labels: Mapping[str, str], one: str, other: str) -> dict[str, Value]:
    """Who measured the two."""
    return {"label": labels.get(one, ""), "other_label": labels.get(other, "")}


def _label_note(about: Mapping[str, Value], one: str, other: str) -> str:
    return f"{one}: {about['label']}; {other}: {about['other_label']}"


def _quality(
    compared: Comparison, track: Track, about: dict[str, Value], notes: list[str]
) -> Sheet:
    one, other = compared.one, compared.other
    among = len(compared.tasks)
    lines = [
        _difference_line(t.task, t.difference, t.adjusted, (t.difference.n,) * 2, among)
        for t in compared.tasks
    ]
    if among > 1:
        counts = [task.difference.n for task in compared.tasks]
        seeds = min(counts), max(counts)
        for name, estimate in (
            ("mean, these tasks", compared.here),
            ("mean, tasks of this kind", compared.general),
        ):
            lines.append(_difference_line(name, estimate.interval(), estimate.p_value(), seeds))
    shown = (
        columns.TASK, columns.DIFFERENCE, columns.INTERVAL, columns.P_OF_SEEDS, columns.VERDICT,
    )  # fmt: skip
    about["verdict"] = verdict(compared)
    notes.append(_label_note(about, one, other))
    notes.append(
        "difference of the scores (log-ratios to softmax), paired by seed; p: paired t test, "
        "that of a task corrected for the number of tasks (Holm); in parentheses the distinct "
        "seeds that both have"
    )
    if any(t.p < ALPHA <= t.adjusted for t in compared.tasks):
        notes.append(_WHY_CORRECTED)
    return Sheet(f"{one} over {other}: {track.title}", shown, tuple(lines), about, tuple(notes))


_WHY_CORRECTED = (
    f"{SAME} among N tasks: the interval of the task alone leaves out zero, but of N comparisons "
    "one may do so by chance; corrected for that (Holm), the difference may be noise"
)


def _difference_line(
    name: str, difference: Interval, p: float, seeds: tuple[int, int], among: int = 1
) -> Line:
    """One difference and what it says.

    Args:
        name: of the task, or of a mean.
        difference: with the interval that it has by itself.
        p: corrected for the number of comparisons.
        seeds: least and largest number of distinct seeds behind the p, over tasks.
        among: how many comparisons that are.
    """
    said = "not known (one seed)"
    if math.isfinite(p):
        better = "better" if difference.value > 0 else "worse"
        alone = difference.known and not difference.low <= 0 <= difference.high
        same = f"{SAME} among {among} tasks" if alone and among > 1 else SAME
        said = better if p < ALPHA else same
    digits = digits_of(difference)
    shown = (
        name, signed(difference.value, digits), bounds(difference, digits),
        f"{p_value(p)} ({count_range(*seeds)})", said,
    )  # fmt: skip
    data: dict[str, Value] = {
        "what": name, **interval_data("difference", difference), "p": number(p),
        "seeds": count_range(*seeds), "verdict": said,
    }  # fmt: skip
    return Line(shown, data)


def _costs(
    results: Results, one: str, other: str, track: Track, about: dict[str, Value]
) -> Sheet | None:
    lines, ratios = [], []
    for axis in AXES:
        found = costs(results, track, axis)
        a, b = found.by_entry.get(one), found.by_entry.get(other)
        if a is None or b is None or max(a.value, b.value) == 0:
            continue
        ratio = ratio_of(a, b)
        ratios.append(ratio)
        crossing = crossovers(results, track, axis, baseline=other).get(one)
        at = f" at {found.length:,}" if found.length else ""
        shown = (
            f"{axis.title}{at}",
            amount(a.value, axis.unit),
            amount(b.value, axis.unit),
            times(ratio.value),
            factor_range(ratio),
            crossing.words() if crossing else NOTHING,
        )
        data: dict[str, Value] = {
            "what": axis.id, "length": found.length, "unit": axis.unit,
            "one": number(a.value), "other": number(b.value), **interval_data("ratio", ratio),
            **crossing_data(crossing),
        }  # fmt: skip
        lines.append(Line(shown, data))
    if not lines:
        return None
    headings = (
        Column("cost"),
        Column(one, right=True),
        Column(other, right=True),
        Column("ratio", right=True),
        columns.INTERVAL,
        Column(f"{one} pays", keep=1),
    )
    notes = (
        _label_note(about, one, other),
        *machine_notes(results, track),
        pays_note(one, other),
        *unsure_notes(ratios),
    )
    return Sheet(
        f"cost of {one} over {other}: {track.title}", headings, tuple(lines), dict(about), notes
    )
