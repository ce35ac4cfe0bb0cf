"""Cost: latency and peak memory of the mechanism itself over sequence length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

from cab.controls import BASELINE, DISTURBED
from cab.report.svg import GREY
from cab.scoring.efficiency import CostPoint
from cab.scoring.intervals import Interval
from cab.scoring.origin import Origin
from cab.scoring.results import entry_labels
from cab.sheets.notes import machine_notes
from cab.sheets.outcomes import ended_measurements
from cab.sheets.phases import PHASES
from cab.sheets.points import disturbed_words, points_sheet
from cab.sheets.words import NOTHING, amount, amount_range, count
from cab.track import Track
from dashboard.data import Snapshot, costs_of, origin_in, rows_of
from dashboard.export import show_chart, words_of
from dashboard.filters import Choice
from dashboard.frames import frame_of
from dashboard.looks import FRAME, EntryLooks, highlight, length_axis, log_axis
from dashboard.wording import measure_command, plain, sentence


@dataclass(frozen=True)
class Quantity:
    """What one chart shows."""

    name: str
    """Of a saved chart"""
    title: str
    axis: str
    unit: str
    of: Callable[[CostPoint], Interval]
    timed: bool = True
    """Whether what else runs on the machine changes it"""


LATENCY = Quantity("latency", "Latency of one call", "Latency", "s", lambda p: p.latency)
MEMORY = Quantity(
    "memory", "Peak memory beyond the inputs", "Peak memory", "B", lambda p: p.memory, timed=False
)


def ratio_of(points: list[CostPoint]) -> Quantity:
    """Latency beside what it was timed in turns with."""
    names = " or ".join(sorted({p.beside for p in points if p.latency_ratio.n})) or BASELINE
    title, label = f"Latency relative to {names}", f"Latency over {names}'s"
    return Quantity("latency-ratio", title, label, "x", lambda p: p.latency_ratio)


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    everything = rows_of(snapshot, track, "efficiency")
    rows = choice.of(everything)
    if rows.empty:
        command = measure_command(snapshot.folder, track, "latency,memory")
        st.info(f"No cost measurements for this choice. Measure some: `{command}`")
        return
    st.subheader(f"Cost: {track.title}")
    found = set(rows["phase"].dropna())
    phases = [p for p in PHASES if p in found] + sorted(found - set(PHASES))
    if phases:
        phase = st.segmented_control(
            "Phase",
            phases,
            default=phases[0],
            required=True,
            format_func=lambda p: PHASES.get(p, p),
            key=f"phase of {' '.join(phases)}",
        )
        pairs = zip(everything["entry"], everything["attention"], strict=True)
        entries = sorted(rows["entry"].unique())
        points = costs_of(snapshot, track, phase, entries)
        st.caption(_shape(points, rows[rows["phase"] == phase]))
        for note in machine_notes(snapshot.results, track)[1:]:  # the first is in the line above
            st.caption(sentence(plain(note)))
        origin = origin_in(snapshot, track, "efficiency")
        _charts(points, EntryLooks(pairs), phase, track, origin)
        _numbers(points, entry_labels(everything))
    _outcomes(rows)


def _shape(points: list[CostPoint], rows: pd.DataFrame) -> str:
    """What was timed and on what."""
    shapes = sorted({(p.batch, p.heads, p.head_dim, p.dtype) for p in points})
    names = sorted(str(name) for name in rows["device_name"].dropna().unique())
    threads = sorted(int(n) for n in rows["threads"].dropna().unique())
    backends = sorted(str(name) for name in rows["backend"].dropna().unique())
    words = [
        "; ".join(f"batch {b}, {count(h, 'head')} of {d}, {t}" for b, h, d, t in shapes),
        f"on {', '.join(names)}",
        f"{' or '.join(str(n) for n in threads)} thread{'' if threads == [1] else 's'}",
        f"backend {', '.join(backends)}",
    ]
    lengths = rows[["length_q", "length_k"]].dropna()
    equal = bool((lengths["length_q"] == lengths["length_k"]).all())
    return plain(", ".join(words)) + (
        ". As many keys as queries." if equal else ". Length counts the queries."
    )


def _charts(
    points: list[CostPoint], looks: EntryLooks, phase: str, track: Track, origin: Origin
) -> None:
    left, right = st.columns(2)
    for place, quantity in ((left, LATENCY), (right, MEMORY), (st.container(), ratio_of(points))):
        chart = _lines(points, quantity, looks)
        if chart is not None:
            words = words_of(
                f"{quantity.name} {phase}",
                f"{quantity.title}, {PHASES.get(phase, phase)}",
                "median over processes with its 95 % interval",
                track,
                origin,
            )
            show_chart(place, chart, words)
        else:
            place.info(f"{quantity.title}: nothing measured in this phase.")
    disturbed = sum(bool(p.disturbed) for p in points)
    zero = sorted({p.entry for p in points if p.memory.value == 0})
    st.caption(
        "Lines: median over processes. Bands: 95 % interval, from the spread between "
        "processes. Both axes are logarithmic. The ratio comes from calls timed in turns; "
        "below 1x is faster, and softmax against itself shows the noise. "
        "A click on a legend entry brings it to the front."
        + (
            f" A ring marks {count(disturbed, 'point')} {DISTURBED}: others kept the machine busy "
            f"while some of its processes were timed; measured again with `--retry {DISTURBED}`."
            if disturbed
            else ""
        )
        + (f" Not drawn on a logarithmic axis: 0 B of {plain(', '.join(zero))}." if zero else "")
    )


def _lines(
    points: list[CostPoint], quantity: Quantity, looks: EntryLooks
) -> alt.LayerChart | alt.FacetChart | None:
    unit = quantity.unit
    frame = pd.DataFrame(
        [
            {
                "entry": p.entry,
                "length": p.length,
                "value": interval.value,
                "low": interval.low if interval.low > 0 else None,
                "high": interval.high if interval.low > 0 else None,
                "shown": _shown(interval, unit),
                "interval": amount_range(interval, unit),
                "processes": interval.n,
                "disturbed": disturbed_words(p) if p.disturbed else "none",
                "ring": bool(p.disturbed) and quantity.timed,
            }
            for p in points
            for interval in [quantity.of(p)]
            if interval.n and interval.value > 0
        ]
    )
    if frame.empty:
        return None
    shown = looks.order(frame["entry"])
    pick = highlight()
    strong = alt.condition(pick, alt.value(1.0), alt.value(0.15))
    values = pd.concat([frame["value"], frame["low"], frame["high"]]).dropna().astype(float)
    y = log_axis(quantity.axis, values, unit)
    base = alt.Chart(frame).encode(x=length_axis(frame["length"]), color=looks.colour(shown))
    tooltip = [
        alt.Tooltip("entry:N", title="Entry"),
        alt.Tooltip("length:Q", title="Length", format="d"),
        alt.Tooltip("shown:N", title=quantity.axis),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("processes:Q", title="Processes"),
        *([alt.Tooltip("disturbed:N", title="Disturbed")] if quantity.timed else []),
    ]
    layers: list[alt.Chart] = []
    if unit == "x":
        layers.append(
            alt.Chart(pd.DataFrame({"value": [1.0]}))
            .mark_rule(color=GREY, strokeDash=[4, 3])
            .encode(y=y)
        )
    layers += [
        base.transform_filter("isValid(datum.low)")
        .mark_area()
        .encode(
            y=alt.Y("low:Q"),
            y2="high:Q",
            opacity=alt.condition(pick, alt.value(0.18), alt.value(0.04)),
        ),
        base.mark_line(strokeWidth=2).encode(y=y, opacity=strong, strokeDash=looks.dash(shown)),
        base.mark_point(filled=True, size=55)
        .encode(y=y, opacity=strong, shape=looks.shape(shown), tooltip=tooltip)
        .add_params(pick),
    ]
    if frame["ring"].any():
        ring = base.transform_filter("datum.ring")
        ring = ring.mark_point(filled=False, shape="circle", size=190, strokeWidth=1.5)
        layers.append(ring.encode(y=y, opacity=strong))
    return alt.layer(*layers).properties(height=300 + FRAME)


def _numbers(points: list[CostPoint], labels: Mapping[str, str]) -> None:
    sheet = points_sheet(points, labels, "Numbers")
    st.markdown(f"**{sheet.title}**")
    st.dataframe(frame_of(sheet), hide_index=True)
    st.caption("Median over processes, with its 95 % interval in the column after it.")
    for note in sheet.notes:
        st.caption(sentence(note))


def _shown(interval: Interval, unit: str) -> str:
    return amount(interval.value, unit) if interval.n else NOTHING


def _outcomes(rows: pd.DataFrame) -> None:
    """Measurements that gave no number, of all phases."""
    sheet = ended_measurements(rows)
    st.markdown(f"**{sheet.title}**")
    if not sheet.lines:
        st.caption("None: every measurement of this choice ended in ok.")
        return
    st.dataframe(frame_of(sheet), hide_index=True)
