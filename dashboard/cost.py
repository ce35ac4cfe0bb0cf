"""Cost: latency and peak memory of the mechanism itself over sequence length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

from cab.cli.tables import byte_size, duration
from cab.scoring.efficiency import CostPoint
from cab.scoring.intervals import Interval
from dashboard.data import Snapshot, costs_of, rows_of
from dashboard.filters import Choice
from dashboard.looks import FRAME, GREY, EntryLooks, highlight, length_axis, log_axis
from dashboard.wording import count, plain, run_command

PHASES = {"forward": "forward", "forward_backward": "forward + backward", "decode": "decode"}


@dataclass(frozen=True)
class Quantity:
    """What one chart shows."""

    title: str
    axis: str
    unit: str
    of: Callable[[CostPoint], Interval]


LATENCY = Quantity("Latency of one call", "Latency", "s", lambda p: p.latency)
MEMORY = Quantity("Peak memory beyond the inputs", "Peak memory", "B", lambda p: p.memory)
RATIO = Quantity(
    "Latency relative to softmax", "Latency over softmax's", "x", lambda p: p.latency_ratio
)


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    everything = rows_of(snapshot, track, "efficiency")
    rows = choice.of(everything)
    if rows.empty:
        command = run_command(
            snapshot.folder,
            "--attn all",
            f"--pattern {track.pattern}",
            f"--scale {track.scale}",
            "--measure latency,memory",
        )
        st.info(f"No cost measurements for this choice. Measure some: `{command}`")
        return
    st.subheader(f"Cost: {track.pattern}, {track.scale}, {track.device}")
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
        _charts(points, EntryLooks(pairs))
        _numbers(points)
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


def _charts(points: list[CostPoint], looks: EntryLooks) -> None:
    left, right = st.columns(2)
    for place, quantity in ((left, LATENCY), (right, MEMORY), (st.container(), RATIO)):
        chart = _lines(points, quantity, looks)
        if chart is not None:
            place.altair_chart(chart, width="stretch")
        else:
            place.info(f"{quantity.title}: nothing measured in this phase.")
    zero = sorted({p.entry for p in points if p.memory.value == 0})
    st.caption(
        "Lines: median over processes. Bands: 95 % interval, from the spread between "
        "processes. Both axes are logarithmic. The ratio comes from calls timed in turns with "
        "softmax; below 1x is faster, and softmax against itself shows the noise. "
        "A click on a legend entry brings it to the front."
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
                "interval": _range(interval, unit),
                "processes": interval.n,
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
    return alt.layer(*layers).properties(height=300 + FRAME, title=quantity.title)


def _numbers(points: list[CostPoint]) -> None:
    st.markdown("**Numbers**")
    st.dataframe(costs_frame(points), hide_index=True)
    st.caption("Median over processes, with its 95 % interval in the column after it.")


def costs_frame(points: list[CostPoint]) -> pd.DataFrame:
    """One line per length and entry."""
    return pd.DataFrame(
        [
            {
                "Length": p.length,
                "Entry": p.entry,
                "Outcome": p.status,
                "Latency": _shown(p.latency, "s"),
                "Latency, 95 %": _range(p.latency, "s"),
                "To softmax": _shown(p.latency_ratio, "x"),
                "To softmax, 95 %": _range(p.latency_ratio, "x"),
                "Peak memory": _shown(p.memory, "B"),
                "Peak memory, 95 %": _range(p.memory, "B"),
                "Processes": max(p.latency.n, p.memory.n),
            }
            for p in sorted(points, key=lambda p: (p.length, p.entry))
        ]
    )


def _shown(interval: Interval, unit: str) -> str:
    if not interval.n:
        return "-"
    return _text(interval.value, unit)


def _range(interval: Interval, unit: str) -> str:
    if not interval.known:
        return "-"
    return f"{_text(interval.low, unit)} to {_text(interval.high, unit)}"


def _text(value: float, unit: str) -> str:
    if unit == "s":
        return duration(value)
    return byte_size(value) if unit == "B" else f"{value:.2f}x"


def _outcomes(rows: pd.DataFrame) -> None:
    """Measurements that gave no number, of all phases."""
    st.markdown("**Measurements that ended without a number**")
    ended = rows[rows["status"] != "ok"]
    if ended.empty:
        st.caption("None: every measurement of this choice ended in ok.")
        return
    lengths = ended["length_q"]
    frame = pd.DataFrame(
        {
            "Entry": ended["entry"].astype(object),
            "Phase": [PHASES.get(p, p) if isinstance(p, str) else "all" for p in ended["phase"]],
            "Length": [str(int(n)) if pd.notna(n) else "all" for n in lengths],
            "Outcome": ended["status"].astype(object),
            "Message": ended["message"].fillna("").astype(object),
            "_order": lengths.fillna(-1),
        }
    )
    keys = ["Entry", "Phase", "_order", "Length", "Outcome", "Message"]
    grouped = frame.groupby(keys, as_index=False).size()
    st.dataframe(grouped.drop(columns="_order").rename(columns={"size": "Times"}), hide_index=True)
