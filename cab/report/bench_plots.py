"""Plots of ``cab bench``: cost over length, both logarithmic, with the fitted lines.

Drawn with Altair, as the dashboard does, and written without a browser by vl-convert.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from cab.cost_metrics import LATENCY, TRACED_MEMORY, of_baseline
from cab.report.figure import Figure, Words
from cab.report.svg import COLOURS
from cab.scoring.curves import Curves
from cab.scoring.origin import of_all
from cab.sheets.naming import slug
from cab.sheets.phases import PHASES
from cab.sheets.words import byte_size, duration

_COLOURS = COLOURS[:6]
_GREYS = ("#5F6670", "#A9AFB8")
_COSTS = {LATENCY: ("Latency", "s"), TRACED_MEMORY: ("Peak memory", "B")}
_NAMES = {LATENCY: "latency", TRACED_MEMORY: "memory"}
_SIZE = (300, 240)
CAPTION = (
    "Points: median over processes. Bars: 95 % interval. Dashed: the fitted power law with its "
    "exponent. Both axes are logarithmic."
)
"""How to read them"""
_STEPS = {"s": 10.0, "B": 4.0}


def save_plots(curves: Sequence[Curves], folder: Path) -> list[Path]:
    """Write a figure of all costs of a pattern, ``cost-<pattern>-<device>``, as SVG, PDF and PNG,
    and one of each cost and phase, ``latency-<pattern>-<phase>-<device>``, as SVG and PDF. Where
    there are several geometries the name ends with theirs.

    Raises:
        StoreError: a file cannot be written.
    """
    written = []
    several = len({curve.scale for curve in curves}) > 1
    for pattern, setting in dict.fromkeys((curve.pattern, curve.setting) for curve in curves):
        own = [curve for curve in curves if (curve.pattern, curve.setting) == (pattern, setting)]
        ending = (setting.device, *([setting.scale] if several else []))
        rows = []
        for metric in _COSTS:
            panels = {
                phase: panel
                for phase in PHASES
                if (panel := _panel([c for c in own if c.phase == phase], phase, metric))
                is not None
            }
            rows += [alt.hconcat(*panels.values())] if panels else []
            for phase, panel in panels.items():
                title = f"{_COSTS[metric][0]}, {PHASES[phase]}"
                name = slug(_NAMES[metric], pattern, phase, *ending)
                of_phase = [c for c in own if c.phase == phase]
                words = _words(of_phase, name, title)
                written += _figure(alt.vconcat(panel), words).save(folder)
        if rows:
            title = "Cost over length"
            words = _words(own, slug("cost", pattern, *ending), title)
            chart = alt.vconcat(*rows).properties(title=f"{title}: {pattern}")
            written += _figure(chart, words).save(folder, ("svg", "pdf", "png"))
    return written


def _words(curves: Sequence[Curves], name: str, title: str) -> Words:
    first = curves[0]
    settings = dict.fromkeys(curve.setting.title for curve in curves)
    track = ", ".join((first.pattern, *settings))
    source = of_all(curve.origin for curve in curves).words()
    return Words(name, f"{title}: {first.pattern} ({', '.join(settings)})", CAPTION, track, source)


def _figure(chart: alt.VConcatChart, words: Words) -> Figure:
    import vl_convert

    dressed = (
        chart.properties(background="white", padding=12)
        .configure_title(anchor="start", fontSize=13)
        .configure_axis(grid=True, gridColor="#E6E8EB", domainColor="#A9AFB8")
        .configure_view(stroke=None)
        .configure_legend(orient="bottom", title=None, labelLimit=320, columns=3)
    )
    drawing: str = vl_convert.vegalite_to_svg(dressed.to_dict())
    return Figure.of(drawing, words)


def _panel(curves: list[Curves], phase: str, metric: str) -> alt.LayerChart | alt.FacetChart | None:
    title, unit = _COSTS[metric]
    points, lines, names = _data(curves, metric)
    if points.empty:
        return None
    beside = list(dict.fromkeys(curve.baseline for curve in curves))
    own = [name for name in names if name not in beside]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(own)}
    colours |= {name: _GREYS[i % len(_GREYS)] for i, name in enumerate(beside)}
    shown = [*own, *(name for name in beside if name in names)]
    colour = alt.Color(
        "entry:N", scale=alt.Scale(domain=shown, range=[colours[name] for name in shown])
    )
    lengths = sorted(points["length"].unique())
    x = alt.X(
        "length:Q",
        title="Context (tokens)" if phase == "decode" else "Length (tokens)",
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=lengths, labelExpr=_LENGTH_LABEL, labelOverlap=True),
    )
    ticks = _ticks(float(points["value"].min()), float(points["value"].max()), _STEPS[unit])
    text = {tick: duration(tick) if unit == "s" else byte_size(tick) for tick in ticks}
    labels = " : ".join(f"datum.value == {tick!r} ? '{word}'" for tick, word in text.items())
    y = alt.Y(
        "value:Q",
        title=f"{title} per token" if phase == "decode" and unit == "s" else title,
        scale=alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False),
        axis=alt.Axis(values=ticks, labelExpr=f"{labels} : ''"),
    )
    layers = [
        alt.Chart(lines)
        .mark_line(strokeDash=[5, 3], strokeWidth=1.2)
        .encode(x=x, y=y, color=colour),
        alt.Chart(points[points["low"].notna()])
        .mark_rule(strokeWidth=1.5, clip=True)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        alt.Chart(points).mark_point(filled=True, size=42).encode(x=x, y=y, color=colour),
    ]
    slopes = lines.drop_duplicates("entry")
    told = ", ".join(f"{row.entry} {row.slope}" for row in slopes.itertuples())
    heading = alt.Title(
        f"{title}, {PHASES[phase]}", subtitle=f"exponents: {told}" if told else "", fontSize=11,
        subtitleFontSize=10, subtitleColor="#5F6670",
    )  # fmt: skip
    width, height = _SIZE
    return alt.layer(*layers).properties(width=width, height=height, title=heading)


_LENGTH_LABEL = "datum.value >= 1024 ? format(datum.value / 1024, '~g') + 'k' : datum.value"


def _data(curves: list[Curves], metric: str) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Points and fitted lines of the entries and of the baselines that they were timed with."""
    points, lines = [], []
    names: list[str] = []
    for curve in curves:
        series = {curve.attention: metric}
        # A baseline that is a candidate too is drawn from its own measurement.
        candidates = {c.attention for c in curves}
        if curve is curves[0]:
            series |= {
                name: of_baseline(metric, name)
                for name in dict.fromkeys(c.baseline for c in curves)
                if name not in candidates
            }
        for name, source in series.items():
            found = [(n, curve.interval(source, n)) for n in curve.medians(source)]
            found = [(n, interval) for n, interval in found if interval.value > 0]
            if not found:
                continue
            names.append(name)
            points += [
                {
                    "entry": name, "length": n, "value": i.value,
                    "low": i.low if i.known else None, "high": i.high if i.known else None,
                }
                for n, i in found
            ]  # fmt: skip
            law = curve.fit(source)
            if law is not None:
                slope = f"{law.exponent.value:.2f}"
                lines += [
                    {"entry": name, "length": n, "value": law.at(n), "slope": slope}
                    for n in law.lengths
                ]
    columns = ["entry", "length", "value", "low", "high"]
    drawn = pd.DataFrame(points, columns=columns)
    fitted = pd.DataFrame(lines, columns=["entry", "length", "value", "slope"])
    return drawn.astype({"low": float, "high": float}), fitted, names


def _ticks(low: float, high: float, step: float) -> list[float]:
    """Powers of a step around a range; at least two."""
    tick = 1.0
    while tick > low:
        tick /= step
    while tick * step <= low:
        tick *= step
    ticks = [tick]
    while ticks[-1] < high:
        ticks.append(ticks[-1] * step)
    return ticks if len(ticks) > 1 else [*ticks, ticks[-1] * step]
