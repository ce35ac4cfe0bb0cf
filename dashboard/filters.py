"""What the reader wants to see: the pattern above the page, everything else in the sidebar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pandas as pd
import streamlit as st

from cab.info import Family, Grade, Scale
from cab.label import Label
from cab.patterns import Pattern
from cab.scoring.boards import family_of
from cab.sheets.choice import ALL, Shown
from cab.sheets.columns import WHO_MEASURED
from cab.sheets.words import count
from cab.track import DEVICES, Track
from dashboard.data import Snapshot, rows_of
from dashboard.wording import plain

CONTROLS_STAY = "Controls always stay."


@dataclass(frozen=True)
class Choice:
    """One track, and which of its tasks and entries to show; an empty tuple chooses all."""

    track: Track
    tasks: tuple[str, ...]
    shown: Shown = ALL

    def keeps_task(self, task: str) -> bool:
        """Whether a task is shown and enters the index."""
        return not self.tasks or task in self.tasks

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The chosen ones among a track's rows; costs do not belong to a task."""
        words = [*zip(rows["attention"], rows["grade"], rows["label"], strict=True)]
        keeps = {word: self.shown.keeps(*map(str, word)) for word in set(words)}
        kept = pd.Series([keeps[word] for word in words], index=rows.index)
        if self.tasks:
            kept &= rows["task"].isin(self.tasks) | (rows["kind"] != "quality")
        return rows[kept.astype(bool)]


def choose(snapshot: Snapshot) -> Choice:
    """Draw the controls and read them."""
    rows = snapshot.results.rows
    with st.sidebar:
        st.header("Filters")
        scale = _one("Scale", _ordered(rows["scale"], list(Scale)), "Scales are separate tracks.")
        here = rows[rows["scale"] == scale]
        device = _one(
            "Device",
            _ordered(here["device"], [*reversed(DEVICES)]),
            "Devices are separate tracks.",
        )
        here = here[here["device"] == device]
    track = Track(_pattern(here), scale, device)
    here = rows_of(snapshot, track)
    key = str(track)
    with st.sidebar:
        tasks = st.multiselect(
            "Tasks",
            _ordered(here[here["kind"] == "quality"]["task"], []),
            key=f"tasks {key}",
            placeholder="All tasks",
            help="The index is computed over the chosen tasks.",
        )
        grades = st.multiselect(
            "Grade",
            list(Grade),
            key="grade",
            placeholder="All grades",
            help="How close an entry's form for the pattern is to what its authors published. "
            f"{CONTROLS_STAY}",
        )
        chosen_families = st.multiselect(
            "Family",
            _ordered(here["attention"].map(family_of), list(Family)),
            key=f"family {key}",
            placeholder="All families",
            help=f"The idea that an attention is built on. {CONTROLS_STAY}",
        )
        labels = st.multiselect(
            "Label",
            _ordered(here["label"], list(Label)),
            key=f"label {key}",
            placeholder="All labels",
            help=f"{WHO_MEASURED}. {CONTROLS_STAY}",
        )
        attentions = st.multiselect(
            "Attention",
            _ordered(here["attention"], []),
            key=f"attention {key}",
            placeholder="All attentions",
        )
        st.divider()
        st.caption(
            f"{count(len(rows), 'current row')} in {count(snapshot.files, 'file')} of "
            f"{plain(str(snapshot.folder))}"
            + (" and the reference results" if snapshot.reference else "")
        )
        st.button("Reload results", help="The page also reads anew after every click.")
    shown = Shown(tuple(map(str, grades)), tuple(chosen_families), tuple(labels), tuple(attentions))
    return Choice(track, tuple(tasks), shown)


def _pattern(rows: pd.DataFrame) -> str:
    measured = set(rows["pattern"].dropna())
    if "pattern" not in st.session_state:
        # The first one with results; whatever the reader picks later stays.
        st.session_state["pattern"] = next(
            (p for p in Pattern if p in measured), Pattern.NONCAUSAL_SELF
        )
    pattern = cast(
        "Pattern",
        st.segmented_control(
            "Pattern",
            list(Pattern),
            required=True,
            format_func=lambda p: f"{p.value} ({p.abbreviation})",
            key="pattern",
        ),
    )
    st.caption(f"{pattern.value}: {pattern.meaning}.")
    return pattern.value


def _one(label: str, options: list[str], help: str) -> str:
    chosen: str = st.selectbox(label, options, key=label.lower(), help=help)
    return chosen


def _ordered(column: pd.Series, order: list[str]) -> list[str]:
    """The values that occur, known ones in their own order and before the others."""
    known = {name: place for place, name in enumerate(order)}
    found = {str(value) for value in column.dropna() if value}
    return sorted(found, key=lambda name: (known.get(name, len(known)), name))
