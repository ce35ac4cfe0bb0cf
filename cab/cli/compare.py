"""``cab compare A B``: paired differences by task, cost ratios, crossover, and a verdict."""

from __future__ import annotations

import math
from pathlib import Path

from rich.markup import escape

from cab.cli import formats
from cab.cli.console import console
from cab.cli.cost_sheets import amount, crossovers
from cab.cli.leaderboard import check_track
from cab.cli.sheet import Column, Line, Sheet, Value, interval_data, number, signed
from cab.cli.sheet import bounds as range_words
from cab.cli.tables import board
from cab.errors import UnknownEntryError, UsageError
from cab.patterns import Pattern
from cab.scoring.comparison import Comparison, comparison
from cab.scoring.cost import AXES, costs
from cab.scoring.crossover import Crossover, ratio_of
from cab.scoring.intervals import Interval
from cab.scoring.ranks import ALPHA
from cab.scoring.results import Results, joined, load_costs, load_scores
from cab.store import ResultStore


def compare_command(
    one: str,
    other: str,
    patterns: list[str],
    scale: str | None,
    device: str | None,
    format: str,
    out: Path,
) -> None:
    """Print every comparison that the store has rows for.

    Raises:
        UsageError: an entry, or something of the choice, does not exist.
    """
    formats.check_format(format)
    check_track(scale, device)
    chosen = list(Pattern) if "all" in patterns else [Pattern.parse(p) for p in patterns]
    store = ResultStore(out)
    metrics = {name for axis in AXES for name in axis.metrics} | {"latency_ratio"}
    results = joined(load_scores(store), load_costs(store, metrics))
    if results.rows.empty:
        raise UsageError(f"no results in {out}; measure some: cab run --attn {one} --attn {other}")
    known = {str(name) for name in results.rows["entry"].unique()}
    for name in (one, other):
        if name not in known:
            raise UnknownEntryError("entry of this results folder", name, known)
    if one == other:
        raise UsageError(f"{one} compared with itself: name two entries")
    sheets = []
    tracks = results.rows[["scale", "device"]].drop_duplicates().itertuples(index=False)
    for its_scale, its_device in sorted((str(s), str(d)) for s, d in tracks):
        if scale in (None, its_scale) and device in (None, its_device):
            for pattern in chosen:
                place = (pattern.value, its_scale, its_device)
                sheets += comparison_sheets(results, one, other, *place)
    if not sheets:
        raise UsageError(f"{one} and {other} share no pattern in this choice")
    if format != "table":
        formats.show(sheets, format)
        return
    for sheet in sheets:
        formats.print_sheet(sheet)
        if "verdict" in sheet.about:
            console.print(f"[bold]{escape(str(sheet.about['verdict']))}[/bold]")
        console.print()


def comparison_sheets(
    results: Results, one: str, other: str, pattern: str, scale: str, device: str
) -> list[Sheet]:
    """Quality, then cost; nothing where the two share nothing."""
    about: dict[str, Value] = {"pattern": pattern, "scale": scale, "device": device}
    sheets = []
    found = board(results, pattern, scale, device)
    compared = comparison(found, one, other)
    if compared.tasks:
        notes = [f"{task} is not compared: no result of {who}" for task, who in
                 compared.lacking.items()]  # fmt: skip
        notes += [f"{task.task} is left out: it does not measure attention here"
                  for task in found.left_out]  # fmt: skip
        sheets.append(_quality(compared, dict(about), notes))
    cost = _costs(results, one, other, about)
    return sheets + ([cost] if cost else [])


def _quality(compared: Comparison, about: dict[str, Value], notes: list[str]) -> Sheet:
    one, other = compared.one, compared.other
    lines = [_difference_line(t.task, t.difference, t.adjusted) for t in compared.tasks]
    if len(compared.tasks) > 1:
        for name, estimate in (
            ("mean, these tasks", compared.here),
            ("mean, tasks of this kind", compared.general),
        ):
            lines.append(_difference_line(name, estimate.interval(), estimate.p_value()))
    columns = (
        Column("task"),
        Column("difference", right=True),
        Column("95 % interval", right=True),
        Column("p", right=True),
        Column("verdict"),
    )
    about["verdict"] = compared.verdict()
    title = f"{one} over {other}: {about['pattern']} ({about['scale']}, {about['device']})"
    notes.append(
        "difference of the scores (log-ratios to softmax), paired by seed; p: paired t test, "
        "corrected for the number of tasks (Holm)"
    )
    return Sheet(title, columns, tuple(lines), about, tuple(notes))


def _difference_line(name: str, difference: Interval, p: float) -> Line:
    verdict = "not known (one seed)"
    if math.isfinite(p):
        better = "better" if difference.value > 0 else "worse"
        verdict = better if p < ALPHA else "not distinguishable"
    shown = (name, signed(difference.value), range_words(difference), p_words(p), verdict)
    data: dict[str, Value] = {
        "what": name, **interval_data("difference", difference), "p": number(p),
        "verdict": verdict,
    }  # fmt: skip
    return Line(shown, data)


def p_words(p: float) -> str:
    """Three digits; smaller ones as a bound."""
    if not math.isfinite(p):
        return "-"
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _costs(results: Results, one: str, other: str, about: dict[str, Value]) -> Sheet | None:
    place = str(about["pattern"]), str(about["scale"]), str(about["device"])
    lines = []
    for axis in AXES:
        found = costs(results, *place, axis)
        a, b = found.by_entry.get(one), found.by_entry.get(other)
        if a is None or b is None or max(a.value, b.value) == 0:
            continue
        ratio = ratio_of(a, b)
        crossing = crossovers(results, *place, axis, baseline=other).get(one)
        at = f" at {found.length:,}" if found.length else ""
        shown = (
            f"{axis.title}{at}",
            amount(a.value, axis.unit),
            amount(b.value, axis.unit),
            f"{ratio.value:.2f}x" if ratio.n else "-",
            f"{ratio.low:.2f} .. {ratio.high:.2f}" if ratio.known else "-",
            crossing.words() if crossing else "-",
        )
        data: dict[str, Value] = {
            "what": axis.id, "length": found.length, "unit": axis.unit,
            "one": number(a.value), "other": number(b.value), **interval_data("ratio", ratio),
            **_crossing_data(crossing),
        }  # fmt: skip
        lines.append(Line(shown, data))
    if not lines:
        return None
    columns = (
        Column("cost"),
        Column(one, right=True),
        Column(other, right=True),
        Column("ratio", right=True),
        Column("95 % interval", right=True),
        Column(f"{one} pays", keep=1),
    )
    title = f"cost of {one} over {other}: {place[0]} ({place[1]}, {place[2]})"
    notes = (f"pays: length from which on {one} costs less than {other}",)
    return Sheet(title, columns, tuple(lines), dict(about), notes)


def _crossing_data(crossing: Crossover | None) -> dict[str, Value]:
    return {
        "pays_from": number(crossing.length) if crossing else None,
        "pays_from_low": number(crossing.low) if crossing else None,
        "pays_from_high": number(crossing.high) if crossing else None,
        "reached": crossing.reached if crossing else None,
    }
