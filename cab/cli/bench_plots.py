"""Plots of ``cab bench``: cost over length, both logarithmic, with the fitted lines.

Drawn with Altair, as the dashboard does, and written without a browser by vl-convert.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from cab.cli.tables import byte_size, duration
from cab.scoring.curves import Curves

_PHASES = {"forward": "forward", "forward_backward": "forward + backward", "decode": "decode"}
_BASELINES = {"softmax": "softmax", "softmax-exact": "softmax_exact"}
_COLOURS = ("#3B82C4", "#E07B39", "#2FA37C", "#C2558F", "#8A6FD1", "#B5962B")
_GREYS = ("#5F6670", "#A9AFB8")
_COSTS = {"latency": ("Latency", "s"), "traced_memory": ("Peak memory", "B")}
_SIZE = (300, 240)
_STEPS = {"s": 10.0, "B": 4.0}


def save_plots(curves: Sequence[Curves], folder: Path) -> list[Path]:
    """Write ``bench-<pattern>.svg`` and ``.png``; gives the files."""
    written = []
    for pattern in dict.fromkeys(curve.pattern for curve in curves):
        chart = _chart([curve for curve in curves if curve.pattern == pattern], pattern)
        if chart is None:
            continue
        for ending in ("svg", "png"):
            path = folder / f"bench-{pattern}.{ending}"
            chart.save(str(path), scale_factor=2)
            written.append(path)
    return written


def _chart(curves: list[Curves], pattern: str) -> alt.VConcatChart | None:
    rows = []
    for metric, (title, unit) in _COSTS.items():
        panels = [
            panel
            for phase in _PHASES
            if (
                panel := _panel([c for c in curves if c.phase == phase], phase, metric, title, unit)
            )
            is not None
        ]
        if panels:
            rows.append(alt.hconcat(*panels))
    if not rows:
        return None
    return (
        alt.vconcat(*rows)
        .properties(title=f"Cost over length: {pattern}", background="white", padding=12)
        .configure_title(anchor="start", fontSize=13)
        .configure_axis(grid=True, gridColor="#E6E8EB", domainColor="#A9AFB8")
        .configure_view(stroke=None)
        .configure_legend(orient="bottom", title=None, labelLimit=320, columns=3)
    )


def _panel(
    curves: list[Curves], phase: str, metric: str, title: str, unit: str
) -> alt.LayerChart | alt.FacetChart | None:
    points, lines, names = _data(curves, metric)
    if points.empty:
        return None
    own = [name for name in names if name not in _BASELINES]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(own)}
    colours |= dict(zip(_BASELINES, _GREYS, strict=True))
    shown = [*own, *(name for name in _BASELINES if name in names)]
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
        f"{title}, {_PHASES[phase]}", subtitle=f"exponents: {told}" if told else "", fontSize=11,
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
                name: f"{metric}_{suffix}"
                for name, suffix in _BASELINES.items()
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
