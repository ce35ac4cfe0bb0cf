"""Provenance: where the shown numbers come from, and the rows themselves."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from cab.sheets.files import inert
from cab.sheets.provenance import SOURCE, sources_sheet
from cab.sheets.words import count
from dashboard.data import Snapshot, rows_of
from dashboard.filters import Choice
from dashboard.frames import frame_of


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The expander at the foot of the page."""
    rows = choice.of(rows_of(snapshot, choice.track))
    with st.expander("Provenance and data"):
        if rows.empty:
            st.caption("No rows for this choice.")
            return
        runs = rows["run_id"].nunique()
        first, last = rows["recorded_at"].min(), rows["recorded_at"].max()
        when = (
            ""
            if pd.isna(first)
            else f", recorded {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
        )
        st.markdown(f"{count(len(rows), 'row')} of {count(runs, 'run')} in this choice{when}.")
        st.table(sources_frame(rows).set_index(SOURCE.heading))
        st.download_button(
            "Download these rows (CSV)",
            lambda: to_csv(rows),
            file_name=f"cab-{'-'.join(choice.track.about.values())}.csv",
            mime="text/csv",
            on_click="ignore",
        )
        st.markdown("**Environments**")
        for text, part in rows.groupby("environment", dropna=False):
            st.caption(count(len(part), "row"))
            st.json(_parsed(text), expanded=False)


def sources_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Versions, commits, devices and labels, with the number of rows of each."""
    frame = frame_of(sources_sheet(rows))
    return frame.assign(**{SOURCE.heading: frame[SOURCE.heading].str.capitalize()})


def to_csv(rows: pd.DataFrame) -> bytes:
    """The rows with all their columns; raw samples as JSON lists."""
    samples = [json.dumps([float(x) for x in values]) for values in rows["samples"]]
    shown = rows.astype(object).map(inert).assign(samples=samples)
    return shown.to_csv(index=False).encode()


def _parsed(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else {}
    except json.JSONDecodeError:
        return {"unparsed": text}
