"""Provenance: where the shown numbers come from, and the rows themselves."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.data import Snapshot, rows_of
from dashboard.filters import Choice
from dashboard.wording import count


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
        st.table(sources_frame(rows).set_index("Source"))
        st.download_button(
            "Download these rows (CSV)",
            lambda: to_csv(rows),
            file_name=f"cab-{choice.track.pattern}-{choice.track.scale}-{choice.track.device}.csv",
            mime="text/csv",
            on_click="ignore",
        )
        st.markdown("**Environments**")
        for text, part in rows.groupby("environment", dropna=False):
            st.caption(count(len(part), "row"))
            st.json(_parsed(text), expanded=False)


def sources_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Versions, commits, devices and labels, with the number of rows of each."""
    found = []
    for title, column in (
        ("Suite version", "suite_version"),
        ("Git commit", "git_commit"),
        ("Device", "device_name"),
        ("Threads", "threads"),
        ("Backend", "backend"),
        ("Label", "label"),
        ("Schema version", "schema_version"),
    ):
        values = rows[column].map(_shown, na_action=None)
        for value, number in values.value_counts().items():
            found.append({"Source": title, "Value": value, "Rows": number})
    return pd.DataFrame(found)


def _shown(value: Any) -> str:
    if pd.isna(value):
        return "not recorded"
    return f"{value:g}" if isinstance(value, float) else str(value)


def to_csv(rows: pd.DataFrame) -> bytes:
    """The rows with all their columns; raw samples as JSON lists."""
    samples = [json.dumps([float(x) for x in values]) for values in rows["samples"]]
    return rows.assign(samples=samples).to_csv(index=False).encode()


def _parsed(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else {}
    except json.JSONDecodeError:
        return {"unparsed": text}
