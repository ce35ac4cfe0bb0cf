"""``cab leaderboard``: standings of what the store holds, a table per pattern, scale and device."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from cab.cli import formats
from cab.cli.console import console
from cab.cli.sheet import Sheet
from cab.errors import UnknownEntryError, UsageError
from cab.info import Grade, Scale
from cab.patterns import Pattern
from cab.registries import TASKS, named_tasks

if TYPE_CHECKING:
    from cab.scoring.quality import QualityBoard
    from cab.scoring.results import Results

BY_INDEX, BY_RATING, BY_COMPOSITIONAL = "index", "bradley-terry", "compositional"
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Choice:
    """What the reader asked for."""

    patterns: Sequence[Pattern]
    tasks: Sequence[str]
    scale: str | None
    device: str | None
    metric: str
    grade: str | None
    whole: bool
    """Whether all patterns were asked for, so that they may be averaged"""


def leaderboard_command(
    patterns: list[str],
    tasks: list[str],
    scale: str | None,
    device: str | None,
    metric: str,
    sort: str,
    grade: str | None,
    published: str | None,
    format: str,
    out: Path,
) -> None:
    """Print every leaderboard that the store, or a published table, has rows for.

    Raises:
        UsageError: something of the choice does not exist.
    """
    formats.check_format(format)
    check_track(scale, device)
    if grade is not None and grade not in list(Grade):
        raise UsageError(f"unknown grade {grade!r}; choose from {', '.join(Grade)}")
    chosen = list(Pattern) if "all" in patterns else [Pattern.parse(p) for p in patterns]
    tasks = named_tasks(tasks) if published is None else tasks
    if published is not None:
        if scale or device or grade or metric != BY_INDEX:
            raise UsageError("--published takes --pattern, --task, --sort and --format alone")
        sheets = _published(published, chosen, tasks)
    else:
        choice = Choice(chosen, tasks, scale, device, metric, grade, "all" in patterns)
        sheets = _measured(choice, out)
    if not sheets:
        if format == "table":
            console.print(
                f"no results in {escape(str(out))} for this choice; "
                "measure some: cab run --attn lla --pattern causal-cross"
            )
        else:
            formats.show([], format)
        return
    if format == "csv":  # one table of entries; what is between tracks has none
        sheets = [sheet for sheet in sheets if sheet.about]
    formats.show(_sorted(sheets, sort), format)


def check_track(scale: str | None, device: str | None) -> None:
    """Raises UsageError for a scale or a device that does not exist."""
    if scale is not None and scale not in list(Scale):
        raise UsageError(f"unknown scale {scale!r}; choose from {', '.join(Scale)}")
    if device is not None and device not in DEVICES:
        raise UsageError(f"unknown device {device!r}; choose from {', '.join(DEVICES)}")


def _sorted(sheets: Sequence[Sheet], key: str) -> list[Sheet]:
    """Every sheet that has such a column, sorted by it."""
    known = {name for sheet in sheets for name in sheet.sort_keys()}
    if key not in known:
        raise UnknownEntryError("column to sort by", key, known)
    return [sheet.sorted_by(key) if key in sheet.sort_keys() else sheet for sheet in sheets]


def _published(name: str, patterns: Sequence[Pattern], tasks: Sequence[str]) -> list[Sheet]:
    from cab.cli.published import published_sheets

    sheets = published_sheets(name, patterns, tasks)
    known = {c.title for sheet in sheets for c in sheet.columns}
    for task in tasks:
        if task not in known:
            every = published_sheets(name, list(Pattern))
            names = {str(n) for s in every for line in s.lines for n in line.data}
            raise UnknownEntryError("published task", task, {n for n in names if n[0].isupper()})
    return sheets


def _measured(choice: Choice, out: Path) -> list[Sheet]:
    from cab.cli.correlation_sheets import tracks_sheet
    from cab.scoring.cost import axis
    from cab.scoring.results import joined, load_costs, load_scores
    from cab.store import ResultStore

    store = ResultStore(out)
    results = load_scores(store)
    by = axis(choice.metric)
    if by is not None and not by.of_model:
        costs = load_costs(store, [*by.metrics, "latency_ratio"])
        results = joined(results, costs)
    _check_tasks(choice.tasks, results.rows["task"].unique())
    _check_metric(choice.metric, results.rows["metric"].unique())
    tracks = results.rows[["scale", "device"]].drop_duplicates().itertuples(index=False)
    sheets: list[Sheet] = []
    boards: dict[tuple[str, str], dict[str, QualityBoard]] = {}
    for scale, device in sorted((str(s), str(d)) for s, d in tracks):
        if choice.scale in (None, scale) and choice.device in (None, device):
            boards[scale, device] = {}
            sheets += _track(results, choice, scale, device, boards[scale, device])
    if choice.metric == BY_INDEX:
        between = tracks_sheet(boards)
        sheets += [between] if between else []
    if sheets and results.superseded:
        note = f"{results.superseded} rows of older code or data left out"
        sheets[-1] = replace(sheets[-1], notes=(*sheets[-1].notes, note))
    return sheets


def _track(
    results: Results,
    choice: Choice,
    scale: str,
    device: str,
    boards: dict[str, QualityBoard],
) -> Iterator[Sheet]:
    """Sheets of one scale and device; fills its boards by pattern."""
    from cab.cli import compositional_sheet, cost_sheets, standings
    from cab.cli.metric_sheets import metric_sheets
    from cab.cli.tables import board
    from cab.scoring.cost import axis

    grade, tasks, metric = choice.grade, choice.tasks, choice.metric
    by, shown = axis(metric), False
    for pattern in (p.value for p in choice.patterns):
        place = (pattern, scale, device)
        if metric == BY_COMPOSITIONAL:
            sheet = compositional_sheet.compositional_sheet(results, *place, tasks, grade)
            yield from [sheet] if sheet else []
            continue
        if by is None and metric not in (BY_INDEX, BY_RATING):
            yield from metric_sheets(results, metric, *place, tasks, grade)
            continue
        boards[pattern] = board(results, *place, tasks)
        if by is not None:
            sheet = cost_sheets.cost_sheet(results, boards[pattern], by, *place, grade)
            yield from [sheet] if sheet else []
        elif metric == BY_RATING and boards[pattern].standings:
            yield standings.rating_sheet(boards[pattern], *place, grade)
        elif metric == BY_INDEX:
            sheet = standings.board_sheet(results, boards[pattern], *place, grade)
            shown = shown or bool(sheet.lines)
            yield from [sheet] if sheet.lines else []
    if metric == BY_INDEX and shown:
        sheet = standings.overall_sheet(boards, scale, device, grade) if choice.whole else None
        if sheet is not None:
            yield replace(sheet, notes=(*sheet.notes, *standings.LEGEND))


def _check_tasks(tasks: Sequence[str], measured: Collection[object]) -> None:
    known = {*TASKS.entries(), *(str(name) for name in measured if name)}
    for task in tasks:
        if task not in known:
            raise UnknownEntryError("task", task, known)


def _check_metric(metric: str, measured: Collection[object]) -> None:
    from cab.scoring.cost import AXES

    views = {BY_INDEX, BY_RATING, BY_COMPOSITIONAL, *(axis.id for axis in AXES)}
    declared = {m.name for info in TASKS.infos() for m in info.metrics}
    known = views | declared | {str(name) for name in measured if name}
    if metric not in known:
        raise UnknownEntryError("metric", metric, known)
