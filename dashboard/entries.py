"""Entries: what the registry says of a mechanism, for the track's entries and all others."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from cab.info import AttentionInfo
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from dashboard.data import Snapshot, rows_of
from dashboard.filters import Choice
from dashboard.wording import plain


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    known = {info.id for info in ATTENTIONS.infos()}
    rows = choice.of(rows_of(snapshot, choice.track))
    measured = sorted(rows["attention"].unique())
    st.subheader("Entry details")
    name: str = st.selectbox(
        "Attention",
        measured + sorted(known - set(measured)),
        format_func=lambda a: a if a in measured else f"{a} (not measured in this choice)",
        key="entry",
    )
    entry = ATTENTIONS.listed(name)
    if entry is None:
        st.info(f"{plain(name)} is not registered in this installation; only its rows are known.")
    else:
        _details(entry.info)
    _measured(rows[rows["attention"] == name])


def _details(info: AttentionInfo) -> None:
    st.markdown(f"#### {plain(info.title)}")
    st.code(info.formula, language=None, wrap_lines=True)
    paper = plain(info.paper) + (f" ({info.year})" if info.year else "")
    if info.url.startswith(("https://", "http://")):
        paper = f"[{paper or plain(info.url)}](<{info.url}>)"
    if paper:
        st.markdown(f"Paper: {paper}")
    st.markdown(f"Kind: {info.kind.value}. Time: `{info.time}`. Memory: `{info.memory}`.")
    grades = [
        {
            "Pattern": f"{pattern.value} ({pattern.abbreviation})",
            "Grade": grade.value if grade else "-",
            "Remark": info.absent.get(pattern, ""),
        }
        for pattern in Pattern
        for grade in [info.grade(pattern)]
    ]
    left, right = st.columns(2)
    left.markdown("**Grades**")
    remarks = any(line["Remark"] for line in grades)
    frame = pd.DataFrame(grades).set_index("Pattern")
    left.table(frame if remarks else frame[["Grade"]])
    right.markdown("**Options**")
    if not info.options:
        right.caption("No options.")
        return
    options = [
        {"Option": o.name, "Default": str(o.default), "Meaning": plain(o.help)}
        for o in info.options
    ]
    right.table(pd.DataFrame(options).set_index("Option"))


def _measured(rows: pd.DataFrame) -> None:
    """The versions of this attention that the shown rows come from."""
    if rows.empty:
        return
    st.markdown("**Measured as**")
    grouped = rows.assign(attention_options=rows["attention_options"].fillna("{}")).groupby(
        ["entry", "attention_options", "attention_hash", "kind", "label"],
        as_index=False,
        dropna=False,
    )
    frame = grouped.size().rename(
        columns={
            "entry": "Entry",
            "attention_options": "Options in force",
            "attention_hash": "Code hash",
            "kind": "Rows of kind",
            "label": "Label",
            "size": "Rows",
        }
    )
    st.dataframe(frame, hide_index=True)
