"""The page: for every scale and device its leaderboards, fronts and costs; then how it was made."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from cab.cost_metrics import LATENCY, PEAK_MEMORY
from cab.patterns import Pattern
from cab.report.album import Album
from cab.report.figure import Words
from cab.report.matrix_plot import matrix_plot
from cab.report.plots import colours, correlation_plot, length_plot, pareto_plot, standings_plot
from cab.scoring.boards import boards, controls, uninformative
from cab.scoring.correlation import Correlation, correlations, without
from cab.scoring.cost import AXES, CostAxis, costs
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.intervals import Interval
from cab.scoring.origin import origin_of
from cab.scoring.pareto import front
from cab.scoring.quality import QualityBoard
from cab.scoring.resolution import resolution
from cab.scoring.results import Results
from cab.scoring.short_runs import ShortRuns
from cab.sheets.correlations import correlation_sheet, tracks_sheet
from cab.sheets.costs import cost_sheet
from cab.sheets.files import html_table
from cab.sheets.method import METHOD
from cab.sheets.naming import slug
from cab.sheets.notes import folder_notes
from cab.sheets.pairs import pairs_sheet
from cab.sheets.provenance import sources_sheet
from cab.sheets.resolution import LEAD, MATRIX_IS, detectable_sheet, tasks_sheet
from cab.sheets.run_costs import disturbed_notes
from cab.sheets.short_runs import short_runs_sheet
from cab.sheets.standings import OVERALL, board_sheet, overall_sheet, rating_sheet
from cab.track import Setting, Track
from cab.version import SUITE_VERSION

Boards = Mapping[str, QualityBoard]

STANDINGS = (
    "Points: mean over tasks of the log-ratio to softmax. Thick bars: 95 % interval on these "
    "tasks; thin ones: what other tasks of this kind would give. Entries under one upright bar are "
    "not distinguishable."
)
FRONT = (
    "Bars: 95 % interval of the cost. Hollow points are dominated in most draws; the line joins "
    "the others."
)
LENGTHS = "Lines: median over processes. Bands: 95 % interval. Both axes are logarithmic."
CORRELATIONS = (
    "Spearman's rank correlation and the number of entries in common; none for fewer than five."
)
"""How to read the figures"""

STYLE = """
:root { color-scheme: light dark; --rule: #8a8f9855; --soft: #7a7f88; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { margin-top: 3rem; border-bottom: 1px solid var(--rule); }
h3 { margin-top: 2rem; } h4 { margin: 1.5rem 0 .4rem; }
p.lead, .notes, footer { color: var(--soft); } .notes { font-size: .87rem; padding-left: 1.2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--rule); text-align: left;
  white-space: nowrap; font-size: .9rem; }
thead th { border-bottom-width: 2px; } svg { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, sans-serif; }
figure { margin: 1rem 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 1rem; }
pre { white-space: pre-wrap; font-size: .82rem; } nav a { margin-right: 1rem; }
@media print { body { max-width: none; } .plots { display: block; } }
"""  # noqa: E501 - rules of a style sheet


def page(
    results: Results,
    settings: Sequence[Setting],
    source: str,
    notes: Sequence[str] = (),
    album: Album | None = None,
    short: Mapping[Setting, Sequence[ShortRuns]] | None = None,
) -> str:
    """The whole page.

    Args:
        results: current rows, quality and cost.
        settings: scale and device of the sections.
        source: where the rows lie.
        notes: what a reader must know of them.
        album: takes the figures of the page.
        short: runs at other numbers of steps, by setting.
    """
    album = Album() if album is None else album
    rows = results.rows
    colour = colours([str(name) for name in rows["entry"].unique()], controls())
    found = {setting: boards(results, setting, Pattern) for setting in settings}
    names = [(f"{setting.scale}-{setting.device}", setting.title) for setting in settings]
    links = "".join(f'<a href="#{key}">{html.escape(name)}</a>' for key, name in names)
    made = datetime.now(UTC)
    body = [
        "<h1>Comprehensive Attention Benchmark</h1>",
        f'<p class="lead">{len(rows):,} current rows of {html.escape(source)}, '
        f"written {made:%Y-%m-%d %H:%M} UTC by cab {SUITE_VERSION}. Scales and devices are "
        "separate tracks: nothing compares across them.</p>",
        *(f'<p class="lead">{html.escape(note)}</p>' for note in notes),
        f'<nav>{links}<a href="#method">Method</a><a href="#environment">Environment</a></nav>',
    ]
    for setting, (key, name) in zip(settings, names, strict=True):
        body.append(f'<h2 id="{key}">{html.escape(name)}</h2>')
        body += _setting(results, found[setting], setting, colour, album)
        told = short_runs_sheet((short or {}).get(setting, ()), setting)
        body.append(html_table(told, 3) if told else "")
    between = tracks_sheet(found)
    body.append(html_table(between) if between else "")
    body.append('<h2 id="method">Method</h2><dl>')
    body += [f"<dt><b>{html.escape(t)}</b></dt><dd>{html.escape(w)}</dd>" for t, w in METHOD]
    body.append("</dl>")
    body += _environment(results, notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Comprehensive Attention Benchmark</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _setting(
    results: Results, boards: Boards, setting: Setting, colour: Mapping[str, str], album: Album
) -> list[str]:
    parts = []
    summary = overall_sheet(boards, setting)
    if summary is not None:
        parts.append(html_table(summary, 3))
    for pattern, found in boards.items():
        parts += _track(results, found, setting.track(pattern), colour, album)
    parts += _correlations(results, boards, setting, album)
    return parts


def _track(
    results: Results, found: QualityBoard, track: Track, colour: Mapping[str, str], album: Album
) -> list[str]:
    points = cost_points(results, track)
    if not (found.standings or points):
        return []
    parts = []
    if found.standings:
        parts.append(html_table(board_sheet(results, found, track), 3))
        words = _words(results, track, "index", "Index and what is distinguishable", STANDINGS)
        parts.append(album.add(standings_plot(found, colour), words))
        parts += _resolution(results, found, track, album)
        if any(s.missing for s in found.standings):
            parts.append(html_table(rating_sheet(found, track), 4))
    else:
        parts.append(f"<h3>{html.escape(track.title)}</h3>")
    plots = []
    for axis in AXES:
        sheet = cost_sheet(results, found, axis, track)
        if sheet is None or not any(line.data["cost"] for line in sheet.lines):
            continue
        parts.append(f"<details><summary>{html.escape(sheet.title)}</summary>"
                     f"{html_table(sheet, 4)}</details>")  # fmt: skip
        priced = costs(results, track, axis)
        at = f" at {priced.length:,}" if priced.length else ""
        words = _words(results, track, f"front {axis.id}", f"Index over {axis.title}{at}", FRONT)
        drawing = pareto_plot(front(found, priced), axis, f"{axis.title}{at}", colour)
        plots.append(album.add(drawing, words))
        words = _words(results, track, f"{axis.id} by length", f"{axis.title} by length", LENGTHS)
        plots.append(album.add(_by_length(points, axis, colour), words))
    plots = [plot for plot in plots if plot]
    if plots:
        parts.append(f'<div class="plots">{"".join(plots)}</div>')
    parts += [f'<p class="lead">{html.escape(note)}</p>' for note in disturbed_notes(points)]
    return parts


def _resolution(results: Results, found: QualityBoard, track: Track, album: Album) -> list[str]:
    """What the board can tell in full; its paragraph stands below the leaderboard."""
    told = resolution(found)
    if told is None:
        return []
    words = _words(results, track, "pairs", "Who beats whom", f"{MATRIX_IS}.")
    parts = [
        f"<h3>{html.escape(track.titled(f'{LEAD}: {track.pattern}'))}</h3>",
        html_table(tasks_sheet(told, track), 4),
        html_table(detectable_sheet(told, track), 4),
        album.add(matrix_plot(told.pairwise), words),
    ]
    pairs = pairs_sheet(found)
    if pairs is not None:
        parts.append(f"<details><summary>All pairs</summary>{html_table(pairs, 4)}</details>")
    return parts


def _words(results: Results, track: Track, name: str, title: str, caption: str) -> Words:
    """What a figure of a track says of itself; of a setting where no row has the pattern."""
    rows = results.select(track)
    if rows.empty:
        rows = results.select(scale=track.scale, device=track.device)
    place = ", ".join((track.pattern, track.scale, track.device))
    named = slug(name, track.pattern, track.scale, track.device)
    return Words(named, f"{title}: {track.title}", caption, place, origin_of(rows).words())


def _by_length(points: Sequence[CostPoint], axis: CostAxis, colour: Mapping[str, str]) -> str:
    """Latency as a ratio to softmax, which was timed in turns; memory as it is."""
    own = [p for p in points if p.phase == axis.phase]
    if axis.metrics == (LATENCY,):
        series = _series(own, lambda p: p.latency_ratio)
        names = sorted({p.beside for p in own if p.latency_ratio.n})
        return length_plot(series, "x", f"{axis.title} over {' or '.join(names)}'s", colour)
    if axis.metrics == (PEAK_MEMORY,):
        return length_plot(_series(own, lambda p: p.memory), "B", axis.title, colour)
    return ""


def _series(
    points: Sequence[CostPoint], of: Callable[[CostPoint], Interval]
) -> dict[str, dict[int, Interval]]:
    found: dict[str, dict[int, Interval]] = {}
    for point in points:
        found.setdefault(point.entry, {})[point.length] = of(point)
    return found


def _columns(boards: Boards) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Index by pattern and score by task, both by entry."""
    patterns, tasks = {}, {}
    for pattern, found in boards.items():
        index = {s.entry: s.index.value for s in found.standings if s.index.n}
        if index:
            patterns[pattern] = index
        for task in found.scores.tasks:
            name = f"{Pattern(pattern).abbreviation} {task}"
            tasks[name] = {s.entry: s.tasks[task] for s in found.standings if task not in s.missing}
    return without(patterns, uninformative()), without(tasks, uninformative())


def _correlations(results: Results, boards: Boards, setting: Setting, album: Album) -> list[str]:
    parts = []
    for title, columns in zip(("patterns", "tasks"), _columns(boards), strict=True):
        found: list[Correlation] = correlations(columns)
        if not found:
            continue
        parts.append(f"<h3>Rank correlations between {title}</h3>")
        if all(c.refused for c in found):
            most = max(c.n for c in found)
            parts.append(f"<p>None: at most {most} entries in common, five are asked for.</p>")
        else:
            heading = f"Rank correlations between {title}"
            words = _words(
                results, setting.track(OVERALL), f"correlations {title}", heading, CORRELATIONS
            )
            drawing = album.add(correlation_plot(list(columns), found), words)
            parts.append(f'<div class="wide">{drawing}</div>')
            numbers = html_table(correlation_sheet(found), 4)
            parts.append(f"<details><summary>With intervals</summary>{numbers}</details>")
    return parts


def _environment(results: Results, about: Sequence[str]) -> list[str]:
    rows = results.rows
    sources = sources_sheet(rows, (*folder_notes(results), *about))
    parts = ['<h2 id="environment">Environment</h2>', html_table(sources, 3)]
    for text in rows["environment"].dropna().astype(object).unique()[:20]:
        try:
            shown = json.dumps(json.loads(str(text)), indent=1, sort_keys=True)
        except json.JSONDecodeError:
            shown = str(text)
        parts.append(f"<details><summary>environment</summary><pre>{html.escape(shown)}</pre>"
                     "</details>")  # fmt: skip
    return parts
