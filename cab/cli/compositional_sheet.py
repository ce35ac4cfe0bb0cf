"""CAB's compositional index of measured numbers as a sheet."""

from __future__ import annotations

import math
from collections.abc import Collection

import pandas as pd

from cab.cli.sheet import Column, Line, Sheet, Value, number, signed
from cab.cli.standings import kept
from cab.cli.tables import headline_metrics
from cab.scoring.compositional import compositional_index, measured_constants
from cab.scoring.quality import scores
from cab.scoring.results import Results


def compositional_sheet(
    results: Results,
    pattern: str,
    scale: str,
    device: str,
    tasks: Collection[str] = (),
    grade: str | None = None,
) -> Sheet | None:
    """CAB's compositional index on measured numbers; None where there are none."""
    table = scores(results, pattern, scale, device)
    headline = headline_metrics()
    pairs = zip(table["task"], table["metric"], strict=True)
    chosen = [m in headline.get(str(t), [m]) and (not tasks or t in tasks) for t, m in pairs]
    table = table[pd.Series(chosen, index=table.index, dtype=bool)]
    if table.empty:
        return None
    grades = dict(zip(table["entry"], table["grade"], strict=True))
    attentions = dict(zip(table["entry"], table["attention"], strict=True))
    place = ["task", "metric", "higher_is_better", "entry"]
    means = table.groupby(place, observed=True)["value"].mean().reset_index()
    means = means.rename(columns={"entry": "attention"}).assign(
        pattern=pattern, backbone="", dataset=""
    )
    index = compositional_index(means, measured_constants(means))
    found: dict[str, dict[str, float]] = {}
    for row in index.itertuples(index=False):
        found.setdefault(str(row.attention), {})[str(row.task)] = float(str(row.value))
    shown_tasks = sorted({task for values in found.values() for task in values} - {"average"})
    average = {name: values.get("average", math.nan) for name, values in found.items()}
    base = average.get("softmax", math.nan)
    order = sorted(found, key=lambda n: (-average[n] if math.isfinite(average[n]) else 1e9, n))
    columns = (
        Column("#", right=True),
        Column("attention"),
        Column("average", right=True),
        Column("Δ softmax", right=True),
        *(Column(task, right=True, keep=1) for task in shown_tasks),
    )
    lines = []
    for rank, name in enumerate(order, start=1):
        if not kept(str(attentions[name]), str(grades[name]), grade):
            continue
        value = average[name]
        ranked = rank if math.isfinite(value) else None
        words = [signed(found[name].get(task, math.nan)) for task in shown_tasks]
        shown = (str(ranked or ""), name, signed(value), signed(value - base), *words)
        data: dict[str, Value] = {
            "rank": ranked, "entry": name, "attention": str(attentions[name]),
            "average": number(value), "delta": number(value - base),
            **{task: number(found[name].get(task, math.nan)) for task in shown_tasks},
        }  # fmt: skip
        lines.append(Line(shown, data))
    return Sheet(
        f"{pattern}, CAB's compositional index ({scale}, {device})",
        columns,
        tuple(lines),
        {"pattern": pattern, "scale": scale, "device": device},
        (
            f"mean z-score, with means and deviations of the {len(found)} entries measured here: "
            "it compares with no other table, has no interval, and changes when an entry is added",
        ),
    )
