"""How long the cells of a plan may take, by what such cells took before."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from cab.admission import options_of
from cab.cell import Cell
from cab.controls import QUALITY
from cab.regularisers import multiple_of
from cab.result_sources import ResultSources
from cab.sheets.training import TIME
from cab.sheets.words import duration


def expected_times(cells: Sequence[Cell], sources: ResultSources, width: int) -> list[str]:
    """Lines on the time of cells that are to run: training, as stored cells took it.

    Args:
        cells: to run.
        sources: of what such cells took.
        width: quality cells at a time.
    """
    known = _known(sources)
    lines, total, unknown = [], 0.0, 0
    quality = [cell for cell in cells if cell.kind == QUALITY]
    for task in dict.fromkeys(cell.task for cell in quality):
        each = [_expected(cell, known) for cell in quality if cell.task == task]
        found = [seconds for seconds in each if seconds is not None]
        unknown += len(each) - len(found)
        if found:
            total += sum(found)
            lines.append(
                f"{task}: {len(each)} cells, about {duration(statistics.median(found))} each"
            )
    if total:
        lines.append(
            f"training: about {duration(total / width)} with {width} at a time, "
            "as long as such cells took where they were measured"
        )
    if unknown:
        lines.append(f"times not known of {unknown} cells: none like them is stored")
    if len(quality) < len(cells):
        from runners.efficiency.settings import CPU_SECONDS

        alone = len(cells) - len(quality)
        lines.append(f"cost: {alone} processes, one after the other, each with its own budget "
                     f"(on a CPU {CPU_SECONDS:.0f} s)")  # fmt: skip
    return lines


def cell_times(sources: ResultSources) -> Callable[[Cell], float | None]:
    """A function that says how many seconds a cell took where cells like it are stored."""
    known = _known(sources)

    def expected(cell: Cell) -> float | None:
        if cell.kind == QUALITY:
            return _expected(cell, known)
        from runners.efficiency.settings import CPU_SECONDS

        return CPU_SECONDS

    return expected


Known = dict[tuple[str, ...], list[float]]


def _known(sources: ResultSources) -> Known:
    """Seconds by (task, scale, device), and by these with the attention, for the recipe's steps."""
    table = sources.read(
        ["metric", "value", "attention_options", "attention", "task", "scale", "device"],
        kinds=[QUALITY],
    )
    known: Known = {}
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    for metric, value, options, attention, *where in rows:
        multiple = multiple_of(options_of(options) or {})
        if metric == TIME and value is not None and multiple > 0:
            known.setdefault((*where,), []).append(value / multiple)
            known.setdefault((*where, attention), []).append(value / multiple)
    return known


def _expected(cell: Cell, known: Known) -> float | None:
    where = (cell.task, cell.scale, cell.device)
    found = known.get((*where, cell.attention)) or known.get(where)
    return multiple_of(cell.options) * statistics.median(found) if found else None
