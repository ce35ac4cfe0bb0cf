"""``cab bench``: cost of a mechanism over lengths - tables, Parquet, plots with fitted lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cab.benching.order import BenchOrder, Ordered
from cab.benching.sizes import parse_percent
from cab.cli.console import console, dim
from cab.cli.ends import complain
from cab.cli.execution import chosen_executor, parse_retry, perform
from cab.cli.formats import print_sheet
from cab.registries import ALL
from cab.sheets.words import unsure_notes
from cab.store import ResultStore

if TYPE_CHECKING:
    import pandas as pd

    from cab.benching.compare import Earlier
    from cab.cell import Cell
    from cab.scoring.curves import Curves


@dataclass(frozen=True, kw_only=True)
class BenchChoice:
    """What of a command is no size."""

    out: Path
    retry: str
    """Outcomes of earlier runs that are tried again"""
    executor: str
    executor_options: Sequence[str]
    compare: Path | None = None
    """An earlier sweep to stand beside this one"""
    tolerance: str = "5"
    """Percent by which a point may be slower than there"""


def bench_command(order: BenchOrder, choice: BenchChoice) -> int:
    """Measure, print and draw; the exit code is 0, 1 where a cell failed or a point has become
    slower than it was in what it is compared with, 2 where a candidate or the baseline breaks the
    contract, 130 after Ctrl-C.
    """
    order.check()
    tolerance = parse_percent("--tolerance", choice.tolerance)
    again = parse_retry(choice.retry)
    # Before anything is measured: the two may lie in one folder.
    earlier = None
    if choice.compare is not None:
        from cab.benching.compare import Earlier

        earlier = Earlier.at(choice.compare)
    store = ResultStore(choice.out)
    store.files()
    store.prepare()

    from runners.session import missing_cells

    ordered = order.plan()
    chosen = chosen_executor(
        choice.executor, choice.executor_options, {"timeout": ordered.patience}
    )
    plan = ordered.bench.plan
    todo = missing_cells(plan.cells, store, again)
    beside = store.beside.note()
    for note in (*plan.notes, *ordered.notes, *([beside] if beside else [])):
        console.print(dim(note))
    seconds = ordered.sweep[0].cell_seconds
    console.print(
        f"{len(plan.cells)} processes, {len(plan.cells) - len(todo)} in {choice.out} "
        f"already, {len(todo)} to run; each takes up to {seconds:.0f} s ({ordered.device})",
        soft_wrap=True,
    )
    if todo and _baseline_breaks(ordered):
        return 2
    performed = perform(
        plan, todo, store, chosen, leave_out=ALL in order.attentions,
        named=ALL not in order.patterns, again=again,
    )  # fmt: skip
    if performed.code is not None:
        return performed.code
    return _show(performed.plan.cells, store, earlier, tolerance)


def _baseline_breaks(ordered: Ordered) -> bool:
    """Whether the baseline, where it is the user's own, breaks the contract; says how."""
    from runners.gate import examine_candidates

    rejected = examine_candidates(ordered.bench.beside)
    for one in rejected:
        for line in one.lines():
            complain(f"baseline {line}")
    if rejected:
        complain(
            "nothing is measured; see every rule with: "
            f"cab check {shlex.quote(rejected[0].target)}, or give another --baseline"
        )
    return bool(rejected)


def _show(
    cells: Sequence[Cell], store: ResultStore, earlier: Earlier | None, tolerance: float
) -> int:
    from cab.benching.frame import long_frame
    from cab.report.bench_plots import save_plots
    from cab.scoring.curves import curves_of
    from cab.scoring.results import load_results

    keys = {cell.key for cell in cells}
    rows = load_results(store, cells=keys).rows
    curves = curves_of(rows)
    if curves:
        _print(curves)
    ends = rows[rows["phase"].isna() & (rows["status"] != "ok")]
    for message in dict.fromkeys(ends["message"]):
        console.print(str(message), soft_wrap=True)
    drawn = store.drawings()
    written = save_plots(curves, drawn)
    long_frame(curves).to_csv(drawn / "bench.csv", index=False)
    console.print(
        f"\nParquet: {store.root}; plots and table in {drawn}: "
        f"{', '.join([*(path.name for path in written), 'bench.csv'])}",
        soft_wrap=True,
    )
    console.print(_hint(store.root), soft_wrap=True)
    slower = earlier is not None and _compare(earlier, rows, tolerance)
    failed = set(rows[rows["status"].isin(("error", "invalid"))]["cell"]) | (
        keys - set(rows["cell"])
    )
    return 1 if failed or slower else 0


def _compare(earlier: Earlier, rows: pd.DataFrame, tolerance: float) -> bool:
    """Print the two side by side; whether a point has become slower."""
    from cab.benching.compare import SLOWER, comparison_sheet, entry_curves
    from cab.sheets.words import count

    changes = earlier.changes(entry_curves(rows))
    console.print()
    print_sheet(comparison_sheet(changes, tolerance, earlier.place))
    elsewhere = earlier.elsewhere(rows)
    if elsewhere:
        console.print(elsewhere, soft_wrap=True)
    slower = sum(change.verdict(tolerance) == SLOWER for change in changes)
    console.print(f"{slower} of {count(len(changes), 'point')} slower")
    return slower > 0


def _print(curves: Sequence[Curves]) -> None:
    from cab.benching import sheets
    from cab.cost_metrics import ratio_to

    shown = []
    hidden: dict[str, None] = {}
    for pattern, scale in dict.fromkeys((c.pattern, c.scale) for c in curves):
        own = [c for c in curves if (c.pattern, c.scale) == (pattern, scale)]
        for sheet in sheets.cost_sheets(own):
            fitted = sheet.fitted(console.width)
            lost = {c.title for c in sheet.columns} - {c.title for c in fitted.columns}
            hidden |= dict.fromkeys(c.title for c in sheet.columns if c.title in lost)
            console.print()
            print_sheet(sheet)
            shown.append(fitted)
        for sheet in (sheets.scaling_sheet(own), sheets.paying_sheet(own)):
            if sheet.lines:
                console.print()
                print_sheet(replace(sheet, title=f"{sheet.title}: {pattern}, {scale}"))
                shown.append(sheet)
    for note in unsure_notes(i for c in curves for i in c.intervals(ratio_to(c.baseline))):
        console.print(dim(note))
    console.print()
    for word, meaning in sheets.LEGEND.items():
        if word in sheets.shown_words(shown):
            console.print(dim(f"{word}: {meaning}"))
    if hidden:
        console.print(dim(f"no room at this width for: {', '.join(hidden)} (see bench.csv)"))


def _hint(root: Path) -> str:
    folder = shlex.quote(str(root))
    return (
        f"see them: cab leaderboard --metric latency --out {folder}; "
        f"cab report --out {folder}; cab dashboard --out {folder}"
    )
