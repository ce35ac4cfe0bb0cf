"""Test scores of one task: every metric by entry, what it is read against, and analyses."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd
import streamlit as st

from cab.cli.tables import plus_minus
from cab.info import Metric, TaskInfo
from cab.registries import TASKS
from cab.scoring.intervals import mean_interval
from cab.scoring.quality import scores
from cab.scoring.reference_lines import ReferenceLine, reference_lines
from dashboard.data import Snapshot
from dashboard.filters import Choice, controls
from dashboard.looks import ACCENT, FRAME, GREY, entry_axis
from dashboard.wording import INTERVAL_OF_SEEDS, plain, with_unit

_ROW_HEIGHT = 28
_MOST_CHARTS = 6
"""With more metrics than that, those outside the index are folded away"""


def show_scores(snapshot: Snapshot, choice: Choice, order: list[str]) -> None:
    """A table and charts of one task, which the reader chooses; entries in the given order."""
    track = choice.track
    table = choice.of(scores(snapshot.results, track.pattern, track.scale, track.device))
    tasks = sorted(table["task"].unique())
    if not tasks:
        return
    st.subheader("Test scores by task")
    infos = {info.id: info for info in TASKS.infos()}
    task: str = st.selectbox(
        "Task",
        tasks,
        format_func=lambda t: f"{t}: {infos[t].title}" if t in infos else t,
        key=f"scores of {track.pattern} {track.scale} {track.device}",
    )
    info = infos.get(task)
    if info is not None:
        st.caption(plain(info.description))
    table = table[table["task"] == task]
    metrics = _metrics(table, info)
    headings = {metric.name: _heading(metric) for metric in metrics}
    present = sorted(table["entry"].unique())
    names = [entry for entry in order if entry in present]
    names += [entry for entry in present if entry not in names]
    found_on = (track.pattern, track.scale, track.device)
    references = reference_lines(snapshot.results, *found_on, str(task))
    st.dataframe(_scores_frame(table, metrics, names, headings), hide_index=True)
    st.caption(
        f"{INTERVAL_OF_SEEDS[0].upper()}{INTERVAL_OF_SEEDS[1:]}. Headline metrics enter the index."
    )
    beside = [metric for metric in metrics if not metric.headline]
    if len(metrics) <= _MOST_CHARTS:
        beside = []
    _charts(table, [metric for metric in metrics if metric not in beside], names, references)
    if beside:
        with st.expander(f"{len(beside)} metrics that are not in the index"):
            _charts(table, beside, names, references)
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
) -> None:
    columns = st.columns(2)
    for place, metric in enumerate(metrics):
        own = [line for line in references if line.metric == metric.name]
        columns[place % 2].altair_chart(_score_chart(table, metric, names, own), width="stretch")


def _analyses(snapshot: Snapshot, choice: Choice, task: str, names: list[str]) -> None:
    """What the trained models attend to, and what their loss does when queries are disturbed."""
    place = (choice.track.pattern, choice.track.scale, choice.track.device)
    table = scores(snapshot.results, *place, phase="analysis")
    table = table[(table["task"] == task) & table["entry"].isin(names)]
    if table.empty:
        return
    with st.expander("Analyses of the trained models"):
        found = _metrics(table, None)
        words = {metric.name: with_unit(metric.name, metric.unit) for metric in found}
        st.dataframe(_scores_frame(table, found, names, words), hide_index=True)
        st.caption(
            "Entropy (nats) and mean distance (1 is the length of the sequence) of the attention "
            "map, where a mechanism has a map of positive weights; the mass of its negative "
            "weights; and the rise of the loss when every query is disturbed by a tenth or half of "
            "its length, along the gradient or at random. On a training batch; they rank nobody."
        )


def _metrics(table: pd.DataFrame, info: TaskInfo | None) -> list[Metric]:
    """The metrics that occur, in the task's order; an unknown task's are read from the rows."""
    present = table.drop_duplicates("metric")
    declared = {metric.name: metric for metric in info.metrics} if info else {}
    found = [m for name, m in declared.items() if name in set(present["metric"])]
    for row in present.sort_values("metric").itertuples(index=False):
        if row.metric not in declared:
            unit = row.unit if isinstance(row.unit, str) else ""
            found.append(Metric(str(row.metric), unit, bool(row.higher_is_better), "", False))
    return found


def _heading(metric: Metric) -> str:
    direction = "higher" if metric.higher_is_better else "lower"
    beside = "" if metric.headline else "; not in the index"
    return f"{with_unit(metric.name, metric.unit)}, {direction} is better{beside}"


def _scores_frame(
    table: pd.DataFrame,
    metrics: list[Metric],
    names: list[str],
    headings: Mapping[str, str],
) -> pd.DataFrame:
    found = []
    for entry in names:
        own = table[table["entry"] == entry]
        line: dict[str, object] = {"Entry": entry, "Seeds": own["seed"].nunique()}
        for metric in metrics:
            values = own[own["metric"] == metric.name]["value"].to_numpy(float)
            line[headings[metric.name]] = plus_minus(mean_interval(values))
        found.append(line)
    return pd.DataFrame(found)


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
        title=with_unit(metric.name, metric.unit),
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
    ).properties(height=_ROW_HEIGHT * len(names) + FRAME, title=_heading(metric))
