"""CAB's compositional index of measured numbers as a sheet."""

from __future__ import annotations

import math
from collections.abc import Collection

import pandas as pd

from cab.controls import BASELINE
from cab.label import short_label
from cab.scoring.boards import headline_metrics
from cab.scoring.compositional import compositional_index, measured_constants
from cab.scoring.quality import scores
from cab.scoring.results import Results, entry_labels
from cab.sheets import columns
from cab.sheets.choice import ALL, Shown
from cab.sheets.sheet import Column, Line, Sheet, Value
from cab.sheets.words import number, signed
from cab.track import Track


def compositional_sheet(
    results: Results, track: Track, tasks: Collection[str] = (), shown: Shown = ALL
) -> Sheet | None:
    """CAB's compositional index on measured numbers; None where there are none."""
    table = scores(results, track)
    headline = headline_metrics()
    pairs = zip(table["task"], table["metric"], strict=True)
    chosen = [m in headline.get(str(t), [m]) and (not tasks or t in tasks) for t, m in pairs]
    table = table[pd.Series(chosen, index=table.index, dtype=bool)]
    if table.empty:
        return None
    grades = dict(zip(table["entry"], table["grade"], strict=True))
    labels = entry_labels(table)
    attentions = dict(zip(table["entry"], table["attention"], strict=True))
    place = ["task", "metric", "higher_is_better", "entry"]
    means = table.groupby(place, observed=True)["value"].mean().reset_index()
    means = means.rename(columns={"entry": "attention"}).assign(
        pattern=track.pattern, backbone="", dataset=""
    )
    index = compositional_index(means, measured_constants(means))
    found: dict[str, dict[str, float]] = {}
    for row in index.itertuples(index=False):
        found.setdefault(str(row.attention), {})[str(row.task)] = float(str(row.value))
    shown_tasks = sorted({task for values in found.values() for task in values} - {"average"})
    average = {name: values.get("average", math.nan) for name, values in found.items()}
    base = average.get(BASELINE, math.nan)
    order = sorted(found, key=lambda n: (-average[n] if math.isfinite(average[n]) else 1e9, n))
    headings = (
        columns.RANK,
        columns.ENTRY,
        columns.LABEL.kept(2),
        columns.AVERAGE,
        Column(f"Δ {BASELINE}", right=True),
        *(columns.of_task(task, keep=1) for task in shown_tasks),
    )
    lines = []
    for rank, name in enumerate(order, start=1):
        label = labels.get(name, "")
        if not shown.keeps(str(attentions[name]), str(grades[name]), label):
            continue
        value = average[name]
        ranked = rank if math.isfinite(value) else None
        scores_of = [signed(found[name].get(task, math.nan)) for task in shown_tasks]
        numbers = (signed(value), signed(value - base), *scores_of)
        words = (str(ranked or ""), name, short_label(label), *numbers)
        data: dict[str, Value] = {
            "rank": ranked, "entry": name, "attention": str(attentions[name]), "label": label,
            "average": number(value), "delta": number(value - base),
            **{task: number(found[name].get(task, math.nan)) for task in shown_tasks},
        }  # fmt: skip
        lines.append(Line(words, data))
    return Sheet(
        track.titled(f"{track.pattern}, CAB's compositional index"),
        headings,
        tuple(lines),
        {**track.about},
        (
            f"mean z-score, with means and deviations of the {len(found)} entries measured here: "
            "it compares with no other table, has no interval, and changes when an entry is added",
        ),
    )
