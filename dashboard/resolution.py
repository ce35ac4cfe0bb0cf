"""What the leaderboard of the track can tell: a paragraph, and below it, folded away, what its
tasks tell, who beats whom, and the smallest difference that could have been seen.
"""

from __future__ import annotations

import altair as alt
import pandas as pd
import streamlit as st

from cab.report.svg import COLOURS, GREY
from cab.scoring.pairwise import Relation
from cab.scoring.quality import Standing
from cab.scoring.resolution import Resolution
from cab.sheets.pairs import VERDICTS
from cab.sheets.resolution import MATRIX_IS, detectable_sheet, matrix_sheet, summary, tasks_sheet
from cab.sheets.short_runs import LEAD, short_runs_sheet
from cab.sheets.words import count_range, p_value
from dashboard.data import Snapshot, origin_in, resolution_of, short_runs_of
from dashboard.export import show_chart, words_of
from dashboard.filters import Choice
from dashboard.frames import frame_of
from dashboard.looks import FRAME
from dashboard.wording import plain, sentence

DETAILS = "What this board can tell, in full"
_ROW_HEIGHT = 22
_LOOKS = {
    Relation.BETTER: ("better in general", COLOURS[0], 0.9),
    Relation.BETTER_HERE: ("better on these tasks", COLOURS[0], 0.4),
    Relation.SAME: ("not distinguishable", GREY, 0.15),
    Relation.WORSE_HERE: ("worse on these tasks", COLOURS[7], 0.4),
    Relation.WORSE: ("worse in general", COLOURS[7], 0.9),
    Relation.UNKNOWN: ("not known", GREY, 0.05),
}


def show_resolution(snapshot: Snapshot, choice: Choice, standings: list[Standing]) -> None:
    """The paragraph and the details; nothing where fewer than two entries are ranked.

    Args:
        snapshot: of the results.
        choice: of the reader.
        standings: the entries that are shown, which have a row each.
    """
    found = resolution_of(snapshot, choice.track, choice.tasks)
    if found is None:
        return
    st.markdown(plain(summary(found)))
    told = short_runs_sheet(short_runs_of(snapshot, choice.track.setting), choice.track.setting)
    if told is not None:
        st.markdown(f"**{plain(LEAD)}** {plain(told.summary)}")
    with st.expander(DETAILS):
        for sheet in (tasks_sheet(found, choice.track), detectable_sheet(found, choice.track)):
            st.markdown(f"**{plain(sheet.title)}**")
            st.dataframe(frame_of(sheet), hide_index=True)
            st.caption(plain(" ".join(map(sentence, sheet.notes))))
        if told is not None:
            st.markdown(f"**{plain(told.title)}**")
            st.dataframe(frame_of(told), hide_index=True)
            st.caption(plain(" ".join(map(sentence, told.notes))))
        shown = [s.entry for s in standings if s.rank is not None]
        if shown:
            words = words_of(
                "pairs",
                "Who beats whom",
                "row over column, corrected for all pairs (Holm)",
                choice.track,
                origin_in(snapshot, choice.track, "quality"),
            )
            show_chart(st.container(), _matrix(found, shown), words)
            notes = matrix_sheet(found, choice.track).notes[1:]
            st.caption(plain(" ".join(map(sentence, (f"Characters: {MATRIX_IS}", *notes)))))


def _matrix(found: Resolution, shown: list[str]) -> alt.LayerChart | alt.FacetChart:
    whole = found.pairwise
    seeds = count_range(*whole.seeds)
    frame = pd.DataFrame(
        [
            {
                "entry": entry,
                "other": other,
                "rank": str(column + 1),
                "relation": _LOOKS[relation][0],
                "mark": relation.value,
                "verdict": VERDICTS[relation],
                "difference": float(whole.difference[row, column]),
                "p_here": p_value(whole.p_here[row, column]),
                "p_general": p_value(whole.p_general[row, column]),
                "seeds": seeds,
            }
            for row, entry in enumerate(whole.entries)
            if entry in shown
            for column, other in enumerate(whole.entries)
            if (relation := whole.relation(row, column)) is not Relation.ITSELF
        ]
    )
    names = [look[0] for look in _LOOKS.values()]
    base = alt.Chart(frame).encode(
        x=alt.X(
            "rank:O",
            title="Rank of the other entry",
            sort=[str(n + 1) for n in range(len(whole.entries))],
            axis=alt.Axis(orient="top", labelAngle=0),
        ),
        y=alt.Y("entry:N", title=None, sort=shown),
        tooltip=[
            alt.Tooltip("entry:N", title="Entry"),
            alt.Tooltip("other:N", title="Over"),
            alt.Tooltip("difference:Q", title="Difference", format="+.3f"),
            alt.Tooltip("verdict:N", title="Verdict"),
            alt.Tooltip("p_here:N", title="p on these tasks"),
            alt.Tooltip("p_general:N", title="p in general"),
            alt.Tooltip("seeds:N", title="Distinct seeds"),
        ],
    )
    boxes = base.mark_rect().encode(
        color=alt.Color(
            "relation:N",
            title=None,
            scale=alt.Scale(domain=names, range=[look[1] for look in _LOOKS.values()]),
            legend=None,
        ),
        opacity=alt.Opacity(
            "relation:N",
            scale=alt.Scale(domain=names, range=[look[2] for look in _LOOKS.values()]),
            legend=None,
        ),
    )
    return alt.layer(boxes, base.mark_text(fontSize=10).encode(text="mark:N")).properties(
        height=_ROW_HEIGHT * len(shown) + FRAME
    )
