"""The page: for every scale and device its leaderboards, fronts and costs; then how it was made."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import pandas as pd

from cab.cli import correlation_sheets, cost_sheets, standings
from cab.cli.formats import html_table
from cab.cli.sheet import Column, Line, Sheet
from cab.cli.tables import board
from cab.patterns import Pattern
from cab.report.plots import colours, correlation_plot, length_plot, pareto_plot, standings_plot
from cab.scoring.correlation import Correlation, correlations, without
from cab.scoring.cost import AXES, CostAxis, costs
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.intervals import Interval
from cab.scoring.pareto import front
from cab.scoring.quality import QualityBoard
from cab.scoring.ranks import holm, significant_pairs
from cab.scoring.results import Results
from cab.scoring.task_scores import BASELINE
from cab.version import SUITE_VERSION

Boards = Mapping[str, QualityBoard]

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
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 1rem; }
pre { white-space: pre-wrap; font-size: .82rem; } nav a { margin-right: 1rem; }
@media print { body { max-width: none; } .plots { display: block; } }
"""  # noqa: E501 - rules of a style sheet

METHOD = (
    ("Index",
     "Per metric and seed the log-ratio to softmax, trained with the same seed, data order and "
     "initial weights, signed so that more is better and limited to a factor of 100; the median "
     "over a task's headline metrics, the mean over tasks. +0.1 is about 10 % better. Overall: the "
     "mean over patterns."),
    ("Intervals",
     "95 %. The wide one treats tasks as a sample of their kind (Student's t over tasks), the one "
     "called these tasks repeats the same tasks under other seeds (Welch and Satterthwaite over "
     "seeds). Costs: over processes, in the logarithm."),
    ("What is distinguishable",
     "Paired t tests. = marks an entry that is not distinguishable from the one above, ~ one that "
     "differs on these tasks only. Ranks are intervals. Bars in the pictures and the table of "
     "pairs correct all pairs of a board together (Holm)."),
    ("Missing results",
     "An entry that lacks a task, a seed or a metric that softmax has there has no index. Its "
     "place is by Bradley-Terry strength over pairwise wins; tasks that it lacks count as lost."),
    ("Tasks that do not count",
     "A task on which softmax does not beat no attention by four seed standard deviations is left "
     "out, and listed."),
    ("Fronts",
     "Dominated: the probability, over draws of both intervals, that another entry is at least as "
     "good and at most as dear. Hollow points are dominated in most draws."),
    ("Correlations",
     "Spearman's, with n; none below five entries. The controls none and softmax-exact are left "
     "out: none would make any two columns agree."),
)  # fmt: skip


def page(results: Results, tracks: Sequence[tuple[str, str]], source: str) -> str:
    """The whole page.

    Args:
        results: current rows, quality and cost.
        tracks: scale and device of the sections.
        source: where the rows lie.
    """
    rows = results.rows
    colour = colours([str(name) for name in rows["entry"].unique()], standings.controls())
    boards = {
        track: {p.value: board(results, p.value, *track) for p in Pattern} for track in tracks
    }
    names = [(f"{scale}-{device}", f"{scale}, {device}") for scale, device in tracks]
    links = "".join(f'<a href="#{key}">{html.escape(name)}</a>' for key, name in names)
    made = datetime.now(UTC)
    body = [
        "<h1>Comprehensive Attention Benchmark</h1>",
        f'<p class="lead">{len(rows):,} current rows of {html.escape(source)}, '
        f"written {made:%Y-%m-%d %H:%M} UTC by cab {SUITE_VERSION}. Scales and devices are "
        "separate tracks: nothing compares across them.</p>",
        f'<nav>{links}<a href="#method">Method</a><a href="#environment">Environment</a></nav>',
    ]
    for track, (key, name) in zip(tracks, names, strict=True):
        body.append(f'<h2 id="{key}">{html.escape(name)}</h2>')
        body += _track(results, boards[track], *track, colour)
    between = correlation_sheets.tracks_sheet(boards)
    body.append(html_table(between) if between else "")
    body.append('<h2 id="method">Method</h2><dl>')
    body += [f"<dt><b>{html.escape(t)}</b></dt><dd>{html.escape(w)}</dd>" for t, w in METHOD]
    body.append("</dl>")
    body += _environment(rows, results.superseded)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Comprehensive Attention Benchmark</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def _track(
    results: Results, boards: Boards, scale: str, device: str, colour: Mapping[str, str]
) -> list[str]:
    parts = []
    summary = standings.overall_sheet(boards, scale, device)
    if summary is not None:
        parts.append(html_table(summary, 3))
    for pattern, found in boards.items():
        parts += _pattern(results, found, pattern, scale, device, colour)
    parts += _correlations(boards)
    return parts


def _pattern(
    results: Results,
    found: QualityBoard,
    pattern: str,
    scale: str,
    device: str,
    colour: Mapping[str, str],
) -> list[str]:
    place = (pattern, scale, device)
    points = cost_points(results, *place)
    if not (found.standings or points):
        return []
    parts = []
    if found.standings:
        parts.append(html_table(standings.board_sheet(results, found, *place), 3))
        parts.append(standings_plot(found, colour))
        pairs = _pairs_sheet(found)
        if pairs is not None:
            parts.append(f"<details><summary>All pairs</summary>{html_table(pairs, 4)}</details>")
        if any(s.missing for s in found.standings):
            parts.append(html_table(standings.rating_sheet(found, *place), 4))
    else:
        parts.append(f"<h3>{html.escape(pattern)} ({scale}, {device})</h3>")
    plots = []
    for axis in AXES:
        sheet = cost_sheets.cost_sheet(results, found, axis, *place)
        if sheet is None or not any(line.data["cost"] for line in sheet.lines):
            continue
        parts.append(f"<details><summary>{html.escape(sheet.title)}</summary>"
                     f"{html_table(sheet, 4)}</details>")  # fmt: skip
        priced = costs(results, *place, axis)
        at = f" at {priced.length:,}" if priced.length else ""
        plots.append(pareto_plot(front(found, priced), axis, f"{axis.title}{at}", colour))
        plots.append(_by_length(points, axis, colour))
    plots = [plot for plot in plots if plot]
    if plots:
        parts.append(f'<div class="plots">{"".join(f"<div>{p}</div>" for p in plots)}</div>')
    return parts


def _by_length(points: Sequence[CostPoint], axis: CostAxis, colour: Mapping[str, str]) -> str:
    """Latency as a ratio to softmax, which was timed in turns; memory as it is."""
    own = [p for p in points if p.phase == axis.phase]
    if axis.metrics == ("latency",):
        series = _series(own, lambda p: p.latency_ratio)
        return length_plot(series, "x", f"{axis.title} over softmax's", colour)
    if axis.metrics == ("peak_memory",):
        return length_plot(_series(own, lambda p: p.memory), "B", axis.title, colour)
    return ""


def _series(
    points: Sequence[CostPoint], of: Callable[[CostPoint], Interval]
) -> dict[str, dict[int, Interval]]:
    found: dict[str, dict[int, Interval]] = {}
    for point in points:
        found.setdefault(point.entry, {})[point.length] = of(point)
    return found


def _pairs_sheet(found: QualityBoard) -> Sheet | None:
    """Every pair of ranked entries, with p-values; None for fewer than two."""
    pairs = found.pairs
    if pairs is None or len(pairs.entries) < 2:
        return None
    differs = significant_pairs(pairs)
    places = [(i, j) for i in range(len(pairs.entries)) for j in range(i + 1, len(pairs.entries))]
    general = holm(pairs.p_general[tuple(zip(*places, strict=True))])
    here = holm(pairs.p_here[tuple(zip(*places, strict=True))])
    lines = []
    for n, (i, j) in enumerate(places):
        verdict = "different" if differs[i, j] else "not distinguishable"
        if not differs[i, j] and here[n] < 0.05:
            verdict = "different on these tasks"
        shown = (
            pairs.entries[i], pairs.entries[j], f"{pairs.difference[i, j]:+.3f}",
            _p(here[n]), _p(general[n]), verdict,
        )  # fmt: skip
        lines.append(Line(shown, {}))
    columns = (
        Column("better"), Column("worse"), Column("difference", right=True),
        Column("p, these tasks", right=True), Column("p", right=True), Column("verdict"),
    )  # fmt: skip
    note = f"p corrected for {len(places)} pairs (Holm)"
    return Sheet("Differences of the index", columns, tuple(lines), {}, (note,))


def _p(value: float) -> str:
    if not value >= 0:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


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
    leave_out = standings.controls() - {BASELINE}
    return without(patterns, leave_out), without(tasks, leave_out)


def _correlations(boards: Boards) -> list[str]:
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
            parts.append(f'<div class="wide">{correlation_plot(list(columns), found)}</div>')
            numbers = html_table(correlation_sheets.correlation_sheet(found), 4)
            parts.append(f"<details><summary>With intervals</summary>{numbers}</details>")
    return parts


def _environment(rows: pd.DataFrame, superseded: int) -> list[str]:
    parts = ['<h2 id="environment">Environment</h2>']
    counts = []
    for title, column in (
        ("suite version", "suite_version"), ("git commit", "git_commit"),
        ("device", "device_name"), ("threads", "threads"), ("backend", "backend"),
        ("label", "label"),
    ):  # fmt: skip
        words = rows[column].astype(object).fillna("not recorded")
        for word, number in words.map(str).value_counts().items():
            counts.append(Line((title, str(word), f"{number:,}"), {}))
    columns = (Column(""), Column("value"), Column("rows", right=True))
    notes = (f"{superseded:,} rows of older code or data left out",) if superseded else ()
    parts.append(
        html_table(Sheet("Where the rows come from", columns, tuple(counts), {}, notes), 3)
    )
    for text in rows["environment"].dropna().astype(object).unique()[:20]:
        try:
            shown = json.dumps(json.loads(str(text)), indent=1, sort_keys=True)
        except json.JSONDecodeError:
            shown = str(text)
        parts.append(f"<details><summary>environment</summary><pre>{html.escape(shown)}</pre>"
                     "</details>")  # fmt: skip
    return parts
