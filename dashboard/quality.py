"""Quality: the leaderboard of the track, and the test scores that it is made of."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd
import streamlit as st

from cab.controls import BASELINE
from cab.report.svg import GREY
from cab.scoring.boards import controls
from cab.scoring.quality import QualityBoard, Standing
from cab.scoring.read_shares import mean_densities
from cab.sheets.columns import MARKS
from cab.sheets.notes import HIDDEN, INDEX, board_notes, folder_notes, stale_notes
from cab.sheets.outcomes import ended_runs
from cab.sheets.reference import reference_notes
from cab.sheets.standings import standings_sheet
from dashboard.data import Snapshot, origin_in, quality_of, rows_of
from dashboard.export import show_chart, words_of
from dashboard.filters import Choice
from dashboard.frames import frame_of, show_signed
from dashboard.looks import ACCENT, FRAME, entry_axis
from dashboard.resolution import show_resolution
from dashboard.scores import show_scores
from dashboard.wording import emphasised, measure_command, plain, sentence

_ROW_HEIGHT = 28


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    rows = choice.of(rows_of(snapshot, track, "quality"))
    if rows.empty:
        command = measure_command(snapshot.folder, track, "quality")
        st.info(f"No quality results for this choice. Measure some: `{command}`")
        return
    board = quality_of(snapshot, track, choice.tasks)
    standings = [s for s in board.standings if choice.shown.keeps(s.attention, s.grade, s.label)]
    st.subheader(f"Leaderboard: {track.title}")
    if choice.tasks:
        st.markdown(f"**Index over the chosen tasks only:** {plain(', '.join(choice.tasks))}.")
    if not standings:
        st.info("None of the chosen entries has a score here.")
    elif not board.tasks:
        st.info("No index: none of these tasks measures attention here; see the notes.")
    else:
        _leaderboard(snapshot, board, standings, choice)
    _notes(snapshot, choice, board, standings)
    _outcomes(rows)
    show_scores(snapshot, choice, [s.entry for s in standings])


def _leaderboard(
    snapshot: Snapshot, board: QualityBoard, standings: list[Standing], choice: Choice
) -> None:
    density = mean_densities(snapshot.results, choice.track, board.tasks)
    show_signed(standings_sheet(standings, board.tasks, choice.track.title, density=density))
    st.caption(" ".join(sentence(words) for words in (INDEX, MARKS, *_hidden(choice))))
    show_resolution(snapshot, choice, standings)
    placed = [s for s in standings if s.rank is not None]
    if placed:
        words = words_of(
            "index",
            "Index and 95 % interval on these tasks",
            "mean over tasks of the log-ratio to softmax, paired by seed",
            choice.track,
            origin_in(snapshot, choice.track, "quality"),
        )
        show_chart(st.container(), _index_chart(placed), words, offset=18)


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
    zero = alt.Chart(pd.DataFrame({"value": [0.0], "label": [BASELINE]})).encode(x=x)
    return alt.layer(
        zero.mark_rule(color=GREY, strokeDash=[4, 3]),
        zero.mark_text(color=GREY, align="left", dx=4, dy=-2, baseline="bottom").encode(
            y=alt.value(0), text="label:N"
        ),
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=3)
        .encode(x=alt.X("low:Q"), x2="high:Q", color=colour, tooltip=tooltip),
        base.mark_point(filled=True, size=80, opacity=1).encode(x=x, color=colour, tooltip=tooltip),
    ).properties(height=_ROW_HEIGHT * len(names) + FRAME)


def _hidden(choice: Choice) -> list[str]:
    return [HIDDEN] if choice.shown.hides else []


def _notes(
    snapshot: Snapshot, choice: Choice, board: QualityBoard, standings: list[Standing]
) -> None:
    notes = board_notes(board, standings, "choose them under Tasks")
    single = [s.entry for s in standings if not s.missing and not s.index.known]
    if single and board.tasks:
        notes.append(f"no interval with a single seed: {', '.join(single)}")
    notes += stale_notes(snapshot.results, choice.track, aside=board.aside)
    notes += reference_notes(snapshot.sources, [standing.label for standing in standings])
    notes += folder_notes(snapshot.results)
    if notes:
        names = [
            *(s.entry for s in standings),
            *(found.task for found in board.left_out),
            *board.retired,
        ]
        st.markdown("**Notes**\n\n" + "\n".join(f"- {emphasised(n, names)}" for n in notes))


def _outcomes(rows: pd.DataFrame) -> None:
    """Cells that ended without a score; they are part of the result."""
    sheet = ended_runs(rows)
    if sheet.lines:
        st.markdown(f"**{sheet.title}**")
        st.dataframe(frame_of(sheet), hide_index=True)
