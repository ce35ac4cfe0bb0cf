"""What calls of a mechanism cost, length by length, as a sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cab.label import short_label
from cab.schema import Status
from cab.scoring.efficiency import CostPoint
from cab.scoring.intervals import Interval
from cab.sheets import columns
from cab.sheets.sheet import Column, Field, Sheet, Value, columns_of, interval_data, lines_of
from cab.sheets.words import NOTHING, amount, amount_range, share, unsure_notes


def points_sheet(points: Sequence[CostPoint], labels: Mapping[str, str], title: str) -> Sheet:
    """A line per length and entry: medians over processes, each with its interval.

    Args:
        points: of one phase; those of a length stay in their order.
        labels: who measured, by entry.
        title: of the sheet.
    """

    def label(point: CostPoint) -> str:
        return labels.get(point.entry, "")

    fields: tuple[Field[CostPoint], ...] = (
        Field(columns.LENGTH, lambda p: f"{p.length:,}", lambda p: {"length": p.length}),
        Field(columns.ENTRY, lambda p: p.entry, lambda p: {"entry": p.entry}),
        Field(
            columns.LABEL.kept(4), lambda p: short_label(label(p)), lambda p: {"label": label(p)}
        ),
        Field(columns.OUTCOME.kept(2), lambda p: p.status, lambda p: {"outcome": p.status}),
        *_quantity("latency", "latency", "s", lambda p: p.latency, keep=3, outcome=True),
        *_quantity(_beside(points), "relative_latency", "x", lambda p: p.latency_ratio),
        *_quantity("peak memory", "peak_memory", "B", lambda p: p.memory, keep=5),
        *([_DENSITY] if any(p.density.n for p in points) else []),
        Field(columns.PROCESSES.kept(6), lambda p: str(_processes(p)), _processes_data),
        *([_DISTURBED] if any(p.disturbed for p in points) else []),
    )
    ordered = sorted(points, key=lambda p: p.length)  # within a length as they come
    notes = unsure_notes(i for p in ordered for i in (p.latency, p.latency_ratio, p.memory))
    return Sheet(title, columns_of(fields), lines_of(fields, ordered), notes=tuple(notes))


_DENSITY: Field[CostPoint] = Field(
    columns.DENSITY,
    lambda p: share(p.density.value),
    lambda p: interval_data("density", p.density),
)


_DISTURBED: Field[CostPoint] = Field(
    columns.DISTURBED.kept(7), lambda p: disturbed_words(p), lambda p: {"disturbed": p.disturbed}
)


def disturbed_words(point: CostPoint) -> str:
    """``2 of 3``: how many of its processes were disturbed; a dash where none was."""
    return f"{point.disturbed} of {_processes(point)}" if point.disturbed else NOTHING


def _beside(points: Sequence[CostPoint]) -> str:
    """The heading of the ratios, by what they are taken to."""
    names = sorted({point.beside for point in points if point.latency_ratio.n})
    return f"to {' or '.join(names)}" if names else columns.TO_BASELINE.title


def _quantity(
    title: str,
    key: str,
    unit: str,
    of: Callable[[CostPoint], Interval],
    keep: int = 0,
    outcome: bool = False,
) -> tuple[Field[CostPoint], Field[CostPoint]]:
    """A number, and its interval in the column after it.

    Args:
        title: of the number.
        key: of the number, for machines.
        unit: as `amount` takes it.
        of: where it stands in a point.
        keep: of the interval, in a narrow terminal.
        outcome: whether an end without a number stands in its place.
    """

    def words(point: CostPoint) -> str:
        if of(point).n:
            return amount(of(point).value, unit)
        return point.status if outcome and point.status != Status.OK.value else NOTHING

    return (
        Field(Column(title, right=True), words, lambda p: interval_data(key, of(p))),
        Field(Column(f"{title}, 95 %", right=True, keep=keep), lambda p: amount_range(of(p), unit)),
    )


def _processes_data(point: CostPoint) -> dict[str, Value]:
    return {"processes": _processes(point)}


def _processes(point: CostPoint) -> int:
    return max(point.latency.n, point.memory.n)
