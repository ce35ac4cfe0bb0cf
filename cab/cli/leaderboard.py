"""``cab leaderboard``: standings of what the store holds, a table per pattern, scale and device."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cab.cli import formats
from cab.cli.console import console
from cab.cli.options import require_folder
from cab.errors import UnknownEntryError, UsageError
from cab.info import Family, Grade
from cab.patterns import Pattern
from cab.registries import TASKS, named_tasks
from cab.result_sources import ResultSources
from cab.sheets.choice import Shown
from cab.sheets.reference import only_reference, with_reference_notes
from cab.sheets.sheet import Sheet
from cab.track import Setting, check_setting

if TYPE_CHECKING:
    from cab.scoring.quality import QualityBoard
    from cab.scoring.results import Results

BY_INDEX, BY_RATING, BY_COMPOSITIONAL = "index", "bradley-terry", "compositional"


@dataclass(frozen=True)
class Choice:
    """What the reader asked for."""

    patterns: Sequence[Pattern]
    tasks: Sequence[str]
    scale: str | None
    device: str | None
    metric: str
    shown: Shown
    whole: bool
    """Whether all patterns were asked for, so that they may be averaged"""
    details: bool = False
    """Whether what a board can tell is shown in full"""


def leaderboard_command(
    patterns: list[str],
    tasks: list[str],
    scale: str | None,
    device: str | None,
    metric: str,
    sort: str,
    grade: str | None,
    family: str | None,
    published: str | None,
    format: str,
    out: Path,
    reference: bool = True,
    details: bool = False,
) -> None:
    """Print every leaderboard that the store, or a published table, has rows for.

    Raises:
        UsageError: something of the choice does not exist.
    """
    formats.check_format(format)
    check_setting(scale, device)
    if grade is not None and grade not in list(Grade):
        raise UsageError(f"unknown grade {grade!r}; choose from {', '.join(Grade)}")
    if family is not None and family not in list(Family):
        raise UsageError(f"unknown family {family!r}; choose from {', '.join(Family)}")
    chosen = list(Pattern) if "all" in patterns else [Pattern.parse(p) for p in patterns]
    tasks = named_tasks(tasks) if published is None else tasks
    if details and metric != BY_INDEX:
        raise UsageError(f"--details goes with --metric {BY_INDEX} alone")
    if published is not None:
        if scale or device or grade or family or details or metric != BY_INDEX:
            raise UsageError("--published takes --pattern, --task, --sort and --format alone")
        sheets = _published(published, chosen, tasks)
    else:
        require_folder(out)
        sources = ResultSources.at(out, reference)
        shown = Shown(tuple(filter(None, [grade])), tuple(filter(None, [family])))
        choice = Choice(chosen, tasks, scale, device, metric, shown, "all" in patterns, details)
        sheets = with_reference_notes(_measured(choice, sources), sources)
        lead = only_reference(sources)
        if lead and sheets and format == "table":
            console.print(f"{lead}\n", soft_wrap=True)
    if not sheets:
        if format == "table":
            console.print(
                f"no results in {out} for this choice; "
                "measure some: cab run --attn lla --pattern causal-cross"
            )
        else:
            formats.show([], format)
        return
    if format == "csv":  # one table of entries; what is between tracks has none
        sheets = [sheet for sheet in sheets if sheet.about]
    formats.show(_sorted(sheets, sort), format)


def _sorted(sheets: Sequence[Sheet], key: str) -> list[Sheet]:
    """Every sheet that has such a column, sorted by it."""
    known = {name for sheet in sheets for name in sheet.sort_keys()}
    if key not in known:
        raise UnknownEntryError("column to sort by", key, known)
    return [sheet.sorted_by(key) if key in sheet.sort_keys() else sheet for sheet in sheets]


def _published(name: str, patterns: Sequence[Pattern], tasks: Sequence[str]) -> list[Sheet]:
    from cab.sheets.published import published_sheets

    sheets = published_sheets(name, patterns, tasks)
    known = {c.title for sheet in sheets for c in sheet.columns}
    for task in tasks:
        if task not in known:
            every = published_sheets(name, list(Pattern))
            names = {str(n) for s in every for line in s.lines for n in line.data}
            raise UnknownEntryError("published task", task, {n for n in names if n[0].isupper()})
    return sheets


_COSTS = ("latency", "train-latency", "decode-latency", "memory", "train-memory")
"""What is shown of a folder that holds costs alone"""


def _measured(choice: Choice, store: ResultSources) -> list[Sheet]:
    """The sheets of the choice; where nothing has been scored, those of what was timed."""
    sheets = _sheets(choice, store)
    if sheets or choice.metric != BY_INDEX or choice.tasks:
        return sheets
    return [sheet for name in _COSTS for sheet in _sheets(replace(choice, metric=name), store)]


def _sheets(choice: Choice, store: ResultSources) -> list[Sheet]:
    from cab.cost_metrics import DENSITY, LATENCY_RATIO
    from cab.scoring.cost import axis
    from cab.scoring.results import joined, load_costs, load_scores
    from cab.scoring.short_runs import short_runs
    from cab.sheets.correlations import tracks_sheet
    from cab.sheets.notes import folder_notes
    from cab.sheets.origins import with_origins
    from cab.sheets.short_runs import short_runs_sheet

    results = load_scores(store)
    by = axis(choice.metric)
    if by is not None and not by.of_model:
        costs = load_costs(store, [*by.metrics, DENSITY, LATENCY_RATIO])
        results = joined(results, costs)
    _check_tasks(choice.tasks, results.rows["task"].unique())
    _check_metric(choice.metric, results.rows["metric"].unique())
    sheets: list[Sheet] = []
    boards: dict[Setting, dict[str, QualityBoard]] = {}
    for setting in results.settings(choice.scale, choice.device):
        boards[setting] = {}
        sheets += _setting(results, choice, setting, boards[setting])
    if choice.metric == BY_INDEX:
        between = tracks_sheet(boards)
        sheets += [between] if between else []
        for setting in boards if results.multiples else ():
            told = short_runs_sheet(short_runs(store, results, setting), setting)
            sheets += [told] if told else []
    if sheets:
        notes = folder_notes(results)
        sheets[-1] = replace(sheets[-1], notes=(*sheets[-1].notes, *notes))
    return with_origins(sheets, results)


def _setting(
    results: Results, choice: Choice, setting: Setting, boards: dict[str, QualityBoard]
) -> Iterator[Sheet]:
    """Sheets of one scale and device; fills its boards by pattern."""
    from cab.scoring.boards import board
    from cab.scoring.cost import axis
    from cab.scoring.resolution import resolution
    from cab.sheets import standings
    from cab.sheets.compositional import compositional_sheet
    from cab.sheets.costs import cost_sheet
    from cab.sheets.metrics import metric_sheets
    from cab.sheets.notes import LEGEND
    from cab.sheets.resolution import detail_sheets

    wanted, tasks, metric = choice.shown, choice.tasks, choice.metric
    by, shown = axis(metric), False
    for pattern in (p.value for p in choice.patterns):
        track = setting.track(pattern)
        if metric == BY_COMPOSITIONAL:
            sheet = compositional_sheet(results, track, tasks, wanted)
            yield from [sheet] if sheet else []
            continue
        if by is None and metric not in (BY_INDEX, BY_RATING):
            yield from metric_sheets(results, metric, track, tasks, wanted)
            continue
        boards[pattern] = board(results, track, tasks)
        if by is not None:
            sheet = cost_sheet(results, boards[pattern], by, track, wanted)
            yield from [sheet] if sheet else []
        elif metric == BY_RATING and boards[pattern].standings:
            yield standings.rating_sheet(boards[pattern], track, wanted)
        elif metric == BY_INDEX:
            sheet = standings.board_sheet(results, boards[pattern], track, wanted)
            shown = shown or bool(sheet.lines)
            yield from [sheet] if sheet.lines else []
            told = resolution(boards[pattern]) if choice.details else None
            if told is not None:
                yield from detail_sheets(told, track, [str(x.data["entry"]) for x in sheet.lines])
    if metric == BY_INDEX and shown:
        sheet = standings.overall_sheet(boards, setting, wanted) if choice.whole else None
        if sheet is not None:
            yield replace(sheet, notes=(*sheet.notes, *LEGEND))


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
