"""``cab compare A B``: paired differences by task, cost ratios, crossover, and a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cab.cli import formats
from cab.cli.console import bold, console
from cab.cli.options import require_folder
from cab.errors import UnknownEntryError, UsageError
from cab.patterns import Pattern
from cab.result_sources import ResultSources
from cab.scoring.cost import METRICS
from cab.scoring.results import joined, load_costs, load_scores
from cab.sheets.comparison import comparison_sheets
from cab.sheets.notes import unread_notes
from cab.sheets.origins import with_origins
from cab.sheets.reference import reference_notes
from cab.track import check_setting


def compare_command(
    one: str,
    other: str,
    patterns: list[str],
    scale: str | None,
    device: str | None,
    format: str,
    out: Path,
    reference: bool = True,
) -> None:
    """Print every comparison that the store has rows for.

    Raises:
        UsageError: an entry, or something of the choice, does not exist.
    """
    formats.check_format(format)
    check_setting(scale, device)
    chosen = list(Pattern) if "all" in patterns else [Pattern.parse(p) for p in patterns]
    require_folder(out)
    store = ResultSources.at(out, reference)
    results = joined(load_scores(store), load_costs(store, METRICS))
    if results.rows.empty:
        raise UsageError(f"no results in {out}; measure some: cab run --attn {one} --attn {other}")
    known = {str(name) for name in results.rows["entry"].unique()}
    for name in (one, other):
        if name not in known:
            raise UnknownEntryError("entry of this results folder", name, known)
    if one == other:
        raise UsageError(f"{one} compared with itself: name two entries")
    sheets = []
    for setting in results.settings(scale, device):
        for pattern in chosen:
            sheets += comparison_sheets(results, one, other, setting.track(pattern))
    if not sheets:
        raise UsageError(f"{one} and {other} share no pattern in this choice")
    shown = [str(sheet.about[name]) for sheet in sheets for name in ("label", "other_label")]
    notes = [*reference_notes(store, shown), *unread_notes(results)]
    sheets[-1] = replace(sheets[-1], notes=(*sheets[-1].notes, *notes))
    sheets = with_origins(sheets, results)
    if format != "table":
        formats.show(sheets, format)
        return
    for sheet in sheets:
        formats.print_sheet(sheet)
        if "verdict" in sheet.about:
            console.print(bold(str(sheet.about["verdict"])))
        console.print()
