"""Samples: what the trained models make of test data, side by side."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from cab.artifact import Artifact
from cab.controls import BASELINE
from cab.errors import StoreError
from cab.result_sources import ResultSources
from dashboard.data import Snapshot, rows_of
from dashboard.filters import Choice
from dashboard.wording import measure_command, plain

_SIDE_BY_SIDE = 3

_PANEL_HEIGHT = 270


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    rows = choice.of(rows_of(snapshot, track, "quality"))
    sources = snapshot.sources
    cells = _cells(sources, rows)
    if not cells:
        command = measure_command(snapshot.folder, track)
        st.info(f"No samples for this choice. Runs keep those of their first seed: `{command}`")
        return
    st.subheader(f"Samples: {track.title}")
    left, right = st.columns([1, 3])
    task: str = left.selectbox("Task", sorted(cells), key=f"samples of {track}")
    entries = list(cells[task])
    chosen: list[str] = right.multiselect(
        "Entries", entries, entries[:_SIDE_BY_SIDE], key=f"entries of samples of {track} {task}"
    )
    if not chosen:
        st.info("Choose an entry to see what it makes.")
        return
    try:
        made = {entry: sources.artifacts(cells[task][entry]) for entry in chosen}
    except StoreError as error:
        st.error(plain(str(error)))
        return
    names = dict.fromkeys(a.name for artifacts in made.values() for a in artifacts)
    captions = {a.name: a.caption for artifacts in made.values() for a in artifacts}
    for name in names:
        st.markdown(f"**{plain(name)}** - {plain(captions[name])}")
        for column, entry in zip(st.columns(len(chosen)), chosen, strict=True):
            with column:
                st.caption(plain(entry))
                _show_one(next((a for a in made[entry] if a.name == name), None))


def _cells(sources: ResultSources, rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Cells that have artifacts, by task and entry; softmax first."""
    found: dict[str, dict[str, str]] = {}
    kept = rows[(rows["status"] == "ok") & (rows["phase"] == "eval")]
    firsts = kept.drop_duplicates(["task", "entry", "cell"])
    order = firsts["attention"].map({BASELINE: 0}).fillna(1)
    for _, row in firsts.assign(order=order).sort_values(["order", "entry", "seed"]).iterrows():
        if sources.has_artifacts(row["cell"]):
            found.setdefault(row["task"], {}).setdefault(row["entry"], row["cell"])
    return found


def _show_one(artifact: Artifact | None) -> None:
    if artifact is None:
        st.write("-")
    elif artifact.suffix == "txt":
        st.code(artifact.content.decode(), language=None, wrap_lines=True)
    elif artifact.suffix == "wav":
        st.audio(artifact.content, format="audio/wav")
    elif artifact.suffix == "png":
        st.image(artifact.content)
    else:
        spec = json.loads(artifact.content)
        # Streamlit gives a chart of one panel no room for its axes and legend by itself.
        one_panel = "mark" in spec or "layer" in spec
        st.vega_lite_chart(
            spec=spec, width="content", height=_PANEL_HEIGHT if one_panel else "content"
        )
