"""Test scores of one task: every metric by entry, what it is read against, and analyses."""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from cab.info import Metric
from cab.registries import TASKS
from cab.report.svg import GREY
from cab.scoring.boards import controls
from cab.scoring.intervals import mean_interval
from cab.scoring.origin import Origin
from cab.scoring.quality import scores
from cab.scoring.reference_lines import ReferenceLine, reference_lines
from cab.sheets.notes import OF_SEEDS
from cab.sheets.scores import ANALYSES, directed, metrics_in, scores_sheet, with_unit
from cab.sheets.words import plus_minus
from cab.track import Track
from dashboard.data import Snapshot, origin_in
from dashboard.export import show_chart, words_of
from dashboard.filters import Choice
from dashboard.frames import frame_of
from dashboard.looks import ACCENT, FRAME, entry_axis
from dashboard.wording import plain, sentence

_ROW_HEIGHT = 28
_MOST_CHARTS = 6
"""With more metrics than that, those outside the index are folded away"""


def show_scores(snapshot: Snapshot, choice: Choice, order: list[str]) -> None:
    """A table and charts of one task, which the reader chooses; entries in the given order."""
    track = choice.track
    table = choice.of(scores(snapshot.results, track))
    tasks = sorted(table["task"].unique())
    if not tasks:
        return
    st.subheader("Test scores by task")
    infos = {info.id: info for info in TASKS.infos()}
    task: str = st.selectbox(
        "Task",
        tasks,
        format_func=lambda t: f"{t}: {infos[t].title}" if t in infos else t,
        key=f"scores of {track}",
    )
    info = infos.get(task)
    if info is not None:
        st.caption(plain(info.description))
    table = table[table["task"] == task]
    metrics = metrics_in(table, info)
    present = sorted(table["entry"].unique())
    names = [entry for entry in order if entry in present]
    names += [entry for entry in present if entry not in names]
    references = reference_lines(snapshot.results, track, str(task))
    st.dataframe(frame_of(scores_sheet(table, metrics, names, task)), hide_index=True)
    st.caption(f"{sentence(OF_SEEDS)} Headline metrics enter the index.")
    beside = [metric for metric in metrics if not metric.headline]
    if len(metrics) <= _MOST_CHARTS:
        beside = []
    origin = origin_in(snapshot, track, "quality")
    shown = [metric for metric in metrics if metric not in beside]
    _charts(table, shown, names, references, track, origin)
    if beside:
        with st.expander(f"{len(beside)} metrics that are not in the index"):
            _charts(table, beside, names, references, track, origin)
    if metrics:
        st.caption("Diamonds: mean. Bars: 95 % interval of the mean. Small points: single seeds.")
    meanings = {r.name: r.help for r in info.references} if info else {}
    for line in references:
        st.caption(
            f"{plain(line.name)}: {plain(line.metric)} {plain(plus_minus(line.value))}. "
            f"{plain(meanings.get(line.name, ''))}"
        )
    _analyses(snapshot, choice, task, names)


def _charts(
    table: pd.DataFrame,
    metrics: list[Metric],
    names: list[str],
    references: list[ReferenceLine],
    track: Track,
    origin: Origin,
) -> None:
    columns = st.columns(2)
    for place, metric in enumerate(metrics):
        own = [line for line in references if line.metric == metric.name]
        task = str(table["task"].iloc[0])
        words = words_of(
            f"{metric.name} {task}",
            f"{task}: {directed(metric)}",
            "mean over seeds with its 95 % interval, and single seeds",
            track,
            origin,
        )
        show_chart(columns[place % 2], _score_chart(table, metric, names, own), words)


def _analyses(snapshot: Snapshot, choice: Choice, task: str, names: list[str]) -> None:
    """What the trained models attend to, and what their loss does when queries are disturbed."""
    table = scores(snapshot.results, choice.track, phase="analysis")
    table = table[(table["task"] == task) & table["entry"].isin(names)]
    if table.empty:
        return
    title = "Analyses of the trained models"
    with st.expander(title):
        sheet = scores_sheet(table, metrics_in(table, None), names, title, with_unit)
        st.dataframe(frame_of(sheet), hide_index=True)
        st.caption(ANALYSES)


def _score_chart(
    table: pd.DataFrame, metric: Metric, names: list[str], references: list[ReferenceLine]
) -> alt.LayerChart | alt.FacetChart:
    fixed = controls()
    rows = table[table["metric"] == metric.name]
    seeds = pd.DataFrame(
        {
            "entry": rows["entry"].astype(object),
            "seed": rows["seed"].astype(int),
            "value": rows["value"].astype(float),
            "kind": ["control" if a in fixed else "entry" for a in rows["attention"]],
        }
    )
    means = []
    for entry, own in seeds.groupby("entry"):
        interval = mean_interval(own["value"].to_numpy(float))
        means.append(
            {
                "entry": entry,
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "kind": own["kind"].iloc[0],
            }
        )
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=["entry", "control"], range=[ACCENT, GREY]), legend=None
    )
    scale = alt.Scale(zero=False)
    x = alt.X(
        "value:Q",
        title=with_unit(metric),
        scale=scale,
        axis=alt.Axis(labelFlush=False),
    )
    mean = alt.Chart(pd.DataFrame(means)).encode(y=entry_axis(names), color=colour)
    tooltip = [
        alt.Tooltip("entry:N", title="Entry"),
        alt.Tooltip("value:Q", title="Mean", format=".4~r"),
        alt.Tooltip("low:Q", title="95 % from", format=".4~r"),
        alt.Tooltip("high:Q", title="to", format=".4~r"),
    ]
    lines = pd.DataFrame(
        [{"value": line.value.value, "name": line.name} for line in references],
        columns=["value", "name"],
    )
    return alt.layer(
        alt.Chart(lines)
        .mark_rule(color=GREY, strokeDash=[4, 3], strokeWidth=2)
        .encode(
            x=x,
            tooltip=[
                alt.Tooltip("name:N", title="Reference"),
                alt.Tooltip("value:Q", title="Value", format=".4~r"),
            ],
        ),
        mean.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2)
        .encode(x=alt.X("low:Q", scale=scale), x2="high:Q", tooltip=tooltip),
        mean.mark_point(filled=True, shape="diamond", size=90, opacity=1).encode(
            x=x, tooltip=tooltip
        ),
        alt.Chart(seeds)
        .mark_circle(size=22, opacity=0.75, yOffset=9)
        .encode(
            y=entry_axis(names),
            x=x,
            color=colour,
            tooltip=[
                alt.Tooltip("entry:N", title="Entry"),
                alt.Tooltip("seed:Q", title="Seed"),
                alt.Tooltip("value:Q", title="Value", format=".4~r"),
            ],
        ),
    ).properties(height=_ROW_HEIGHT * len(names) + FRAME)
