"""Quality: the leaderboard of the track, and the test scores that it is made of."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd
import streamlit as st

from cab.cli.tables import plus_minus
from cab.scoring.intervals import Interval
from cab.scoring.quality import (
    DISCRIMINATION,
    Discrimination,
    QualityBoard,
    Standing,
)
from cab.scoring.task_scores import BASELINE
from dashboard.data import Snapshot, quality_of, rows_of
from dashboard.filters import Choice, controls
from dashboard.looks import ACCENT, FRAME, GREY, entry_axis
from dashboard.scores import show_scores
from dashboard.wording import count, plain, run_command

_ROW_HEIGHT = 28


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    rows = choice.of(rows_of(snapshot, track, "quality"))
    if rows.empty:
        command = run_command(
            snapshot.folder,
            "--attn all",
            f"--pattern {track.pattern}",
            f"--scale {track.scale}",
            "--measure quality",
        )
        st.info(f"No quality results for this choice. Measure some: `{command}`")
        return
    board = quality_of(snapshot, track, choice.tasks)
    standings = [s for s in board.standings if choice.keeps(s.attention, s.grade)]
    st.subheader(f"Leaderboard: {track.pattern}, {track.scale}, {track.device}")
    if choice.tasks:
        st.markdown(f"**Index over the chosen tasks only:** {plain(', '.join(choice.tasks))}.")
    if not standings:
        st.info("None of the chosen entries has a score here.")
    elif not board.tasks:
        st.info("No index: none of these tasks measures attention here; see the notes.")
    else:
        _leaderboard(board, standings, choice)
    _notes(snapshot, board, standings)
    _outcomes(rows)
    show_scores(snapshot, choice, [s.entry for s in standings])


def standings_frame(standings: list[Standing], tasks: list[str]) -> pd.DataFrame:
    """The leaderboard as it is read: rank, entry, grade, index, intervals, score by task."""
    return pd.DataFrame(
        [
            {
                "Rank": "" if s.rank is None else f"{s.separation.mark}{s.rank}",
                "Entry": s.entry,
                "Grade": s.grade,
                "Index": None if s.missing else s.index.value,
                "95 % interval": _bounds(s, s.index),
                "These tasks": _bounds(s, s.here),
                **{task: s.tasks.get(task) for task in tasks},
            }
            for s in standings
        ]
    )


def _bounds(standing: Standing, interval: Interval) -> str:
    if standing.entry == BASELINE:
        return "baseline"
    return f"{interval.low:+.3f} to {interval.high:+.3f}" if interval.known else "-"


def _leaderboard(board: QualityBoard, standings: list[Standing], choice: Choice) -> None:
    signed = st.column_config.NumberColumn(format="%+.3f")
    st.dataframe(
        standings_frame(standings, board.tasks),
        hide_index=True,
        column_config={
            "Rank": st.column_config.TextColumn(
                width="small",
                help="= not distinguishable from the entry above; ~ different on these tasks, "
                "though other tasks may swap them",
            ),
            "Entry": st.column_config.TextColumn(width="medium"),
            "Grade": st.column_config.TextColumn(width="small"),
            "Index": signed,
            **dict.fromkeys(board.tasks, signed),
        },
    )
    st.caption(
        "Index: mean over tasks of the signed log-ratio to softmax, paired by training seed; "
        "+0.1 is about 10 % better than softmax. 95 % interval: what other tasks of this kind "
        "would give; these tasks: what other seeds would give on these. = not distinguishable from "
        "the entry above; ~ different on these tasks, though other tasks may swap them."
        + (" Ranks count the hidden entries too." if choice.hides_entries else "")
    )
    placed = [s for s in standings if s.rank is not None]
    if placed:
        st.altair_chart(_index_chart(placed), width="stretch")


def _index_chart(standings: list[Standing]) -> alt.LayerChart | alt.FacetChart:
    fixed = controls()
    names = [s.entry for s in standings]
    frame = pd.DataFrame(
        [
            {
                "entry": s.entry,
                "kind": "control" if s.attention in fixed else "entry",
                "value": s.index.value,
                "low": s.here.low,
                "high": s.here.high,
                "ratio": math.expm1(s.index.value),
                "seeds": s.index.n,
            }
            for s in standings
        ]
    )
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=["entry", "control"], range=[ACCENT, GREY]), legend=None
    )
    tooltip = [
        alt.Tooltip("entry:N", title="Entry"),
        alt.Tooltip("value:Q", title="Index", format="+.3f"),
        alt.Tooltip("low:Q", title="95 % from", format="+.3f"),
        alt.Tooltip("high:Q", title="to", format="+.3f"),
        alt.Tooltip("ratio:Q", title="Against softmax", format="+.1%"),
        alt.Tooltip("seeds:Q", title="Seeds"),
    ]
    x = alt.X(
        "value:Q",
        title="Index: log-ratio to softmax, more is better",
        axis=alt.Axis(format="+.2~f", labelFlush=False),
    )
    base = alt.Chart(frame).encode(y=entry_axis(names))
    zero = alt.Chart(pd.DataFrame({"value": [0.0], "label": ["softmax"]})).encode(x=x)
    return alt.layer(
        zero.mark_rule(color=GREY, strokeDash=[4, 3]),
        zero.mark_text(color=GREY, align="left", dx=4, dy=-2, baseline="bottom").encode(
            y=alt.value(0), text="label:N"
        ),
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3)
        .encode(x=alt.X("low:Q"), x2="high:Q", color=colour, tooltip=tooltip),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, color=colour, tooltip=tooltip),
    ).properties(
        height=_ROW_HEIGHT * len(names) + FRAME,
        title=alt.Title("Index and 95 % interval on these tasks", offset=18),
    )


def _notes(snapshot: Snapshot, board: QualityBoard, standings: list[Standing]) -> None:
    notes = [_left_out(found) for found in board.left_out]
    if board.unjudged:
        notes.append(
            f"Not enough seeds of softmax and none to judge whether a task measures attention: "
            f"{plain(', '.join(board.unjudged))}. It counts for now."
        )
    if board.probes:
        notes.append(
            f"Probes do not enter this index; choose them under Tasks to rank by them: "
            f"{plain(', '.join(board.probes))}."
        )
    notes += [
        f"**{plain(s.entry)}** has no index: no score paired with softmax on "
        f"{plain(', '.join(s.missing))}."
        for s in standings
        if s.missing
    ]
    single = [s.entry for s in standings if not s.missing and not s.index.known]
    if single and board.tasks:
        notes.append(f"No interval with a single seed: {plain(', '.join(single))}.")
    if snapshot.results.superseded:
        notes.append(
            f"{count(snapshot.results.superseded, 'row')} of older code or data in this store "
            "left out."
        )
    if notes:
        st.markdown("**Notes**\n\n" + "\n".join(f"- {note}" for note in notes))


def _left_out(found: Discrimination) -> str:
    direction = (
        f"softmax beats none by {found.ratio:.1f} seed standard deviations only"
        if found.ratio > 0
        else "softmax does not beat none"
    )
    numbers = f"softmax {plus_minus(found.softmax)}, none {plus_minus(found.none)}"
    return (
        f"**{plain(found.task)}** is left out of the index, because it does not measure attention "
        f"here: {direction} on {plain(found.metric)} ({plain(numbers)}; "
        f"{DISCRIMINATION:g} are asked for)."
    )


def _outcomes(rows: pd.DataFrame) -> None:
    """Cells that ended without a score; they are part of the result."""
    ended = rows[rows["status"] != "ok"]
    if ended.empty:
        return
    st.markdown("**Runs that ended without a score**")
    grouped = ended.assign(message=ended["message"].fillna("")).groupby(
        ["entry", "task", "status", "message"], as_index=False
    )
    frame = grouped.agg(seeds=("seed", lambda s: ", ".join(str(int(v)) for v in sorted(s))))
    st.dataframe(
        frame[["entry", "task", "status", "seeds", "message"]].rename(
            columns={
                "entry": "Entry",
                "task": "Task",
                "status": "Outcome",
                "seeds": "Seeds",
                "message": "Message",
            }
        ),
        hide_index=True,
    )
