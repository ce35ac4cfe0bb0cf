"""Raw scores of one task as a sheet: every metric that it reports, by entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from cab.info import Metric, TaskInfo
from cab.label import short_label
from cab.scoring.intervals import mean_interval
from cab.scoring.results import entry_labels
from cab.sheets import columns
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import plus_minus

ANALYSES = (
    "Entropy (nats) and mean distance (1 is the length of the sequence) of the attention map, "
    "where a mechanism has a map of positive weights; the mass of its negative weights; and the "
    "rise of the loss when every query is disturbed by a tenth or half of its length, along the "
    "gradient or at random. Evidence: where a task knows which key holds the answer, the "
    "probability that the map weighs it more than another one, as it is and divided by the map of "
    "a mean question (contrastive). All that on a training batch. Density: the share of the "
    "visible pairs that a sparse mechanism reads, on validation data. They rank nobody."
)
"""What the numbers of the phase analysis are"""


def metrics_in(table: pd.DataFrame, info: TaskInfo | None) -> list[Metric]:
    """The metrics that occur, in the task's order; what it does not declare is read from the rows
    and comes last.

    Args:
        table: scores of one task.
        info: the task's, where it is registered here.
    """
    present = table.drop_duplicates("metric")
    declared = {metric.name: metric for metric in info.metrics} if info else {}
    found = [m for name, m in declared.items() if name in set(present["metric"])]
    for row in present.sort_values("metric").itertuples(index=False):
        if row.metric not in declared:
            unit = row.unit if isinstance(row.unit, str) else ""
            found.append(Metric(str(row.metric), unit, bool(row.higher_is_better), "", False))
    return found


def with_unit(metric: Metric) -> str:
    """``nll (nat/token)``; a number without a dimension has no unit to name."""
    return f"{metric.name} ({metric.unit})" if metric.unit not in ("", "1") else metric.name


def directed(metric: Metric) -> str:
    """``nll (nat/token), lower is better``, and whether it counts."""
    direction = "higher" if metric.higher_is_better else "lower"
    beside = "" if metric.headline else "; not in the index"
    return f"{with_unit(metric)}, {direction} is better{beside}"


def scores_sheet(
    table: pd.DataFrame,
    metrics: Sequence[Metric],
    entries: Sequence[str],
    title: str,
    heading: Callable[[Metric], str] = directed,
) -> Sheet:
    """A line per entry: means over seeds.

    Args:
        table: scores of one task.
        metrics: a column each.
        entries: in the order of the lines.
        title: of the sheet.
        heading: of the column of a metric.
    """
    labels = entry_labels(table)
    lines = []
    for entry in entries:
        own = table[table["entry"] == entry]
        label, seeds = labels.get(entry, ""), int(own["seed"].nunique())
        data: dict[str, Value] = {"entry": entry, "label": label, "seeds": seeds}
        shown = [entry, short_label(label), str(seeds)]
        for metric in metrics:
            found = mean_interval(own[own["metric"] == metric.name]["value"].to_numpy(float))
            data |= interval_data(metric.name, found)
            shown.append(plus_minus(found))
        lines.append(Line(tuple(shown), data))
    own_columns = (Column(heading(m), right=True, page=heading(m)) for m in metrics)
    return Sheet(title, (columns.ENTRY, columns.LABEL, columns.SEEDS, *own_columns), tuple(lines))
