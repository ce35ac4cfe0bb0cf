"""Training: loss curves and what the training took."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from cab.sheets.notes import OF_SEEDS
from cab.sheets.training import LOSS, runs_sheet
from dashboard.data import Snapshot, origin_in, rows_of
from dashboard.export import show_chart, words_of
from dashboard.filters import Choice
from dashboard.frames import frame_of
from dashboard.looks import FRAME, EntryLooks, highlight
from dashboard.wording import measure_command, plain, sentence


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    everything = rows_of(snapshot, track, "quality")
    rows = choice.of(everything)
    rows = rows[(rows["phase"] == "train") & (rows["status"] == "ok")]
    if rows.empty:
        command = measure_command(snapshot.folder, track, "quality")
        st.info(f"No training runs for this choice. Measure some: `{command}`")
        return
    st.subheader(f"Training: {track.title}")
    task: str = st.selectbox(
        "Task",
        sorted(rows["task"].unique()),
        key=f"training of {track}",
    )
    rows = rows[rows["task"] == task]
    curves = curves_frame(rows)
    if curves.empty:
        st.info("Nothing was trained in this task.")
    else:
        logarithmic = st.toggle("Logarithmic loss axis", value=False)
        pairs = zip(everything["entry"], everything["attention"], strict=True)
        words = words_of(
            f"training-loss {task}",
            f"Training loss on {task}",
            "thin lines: single seeds; thick lines: mean over seeds",
            track,
            origin_in(snapshot, track, "quality"),
        )
        show_chart(st.container(), _chart(curves, EntryLooks(pairs), logarithmic), words)
        flat = sorted(set(rows["entry"]) - set(curves["entry"]))
        st.caption(
            "Thin lines: single seeds. Thick lines: mean over seeds. The loss is smoothed "
            "exponentially (0.9 of the past) and recorded at about fifty steps; the horizontal "
            "axis is the share of all optimisation steps."
            + (f" Without anything to train: {plain(', '.join(flat))}." if flat else "")
        )
    runs = runs_sheet(rows)
    st.markdown(f"**{runs.title}**")
    st.dataframe(frame_of(runs), hide_index=True)
    st.caption(
        f"{sentence(OF_SEEDS)} Time is that of the optimisation, "
        "evaluations excluded. The checkpoint is the one with the best validation score."
    )


def curves_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of the loss curves: a line per entry and seed, and one for their mean."""
    points: list[dict[str, Any]] = []
    losses = rows[rows["metric"] == LOSS]
    for entry, own in losses.groupby("entry"):
        curves = {
            str(int(seed)): np.asarray(samples, dtype=float)
            for seed, samples in zip(own["seed"], own["samples"], strict=True)
            if len(samples)
        }
        if len(curves) > 1 and len({len(curve) for curve in curves.values()}) == 1:
            curves["mean"] = np.mean(list(curves.values()), axis=0)
        for seed, curve in curves.items():
            points += [
                {
                    "entry": entry,
                    "seed": seed,
                    "line": "mean" if seed == "mean" or len(curves) == 1 else "seed",
                    "progress": (i + 1) / len(curve),
                    "loss": loss,
                }
                for i, loss in enumerate(curve)
            ]
    return pd.DataFrame(points, columns=["entry", "seed", "line", "progress", "loss"])


def _chart(curves: pd.DataFrame, looks: EntryLooks, logarithmic: bool) -> alt.Chart:
    shown = looks.order(curves["entry"])
    pick = highlight()
    scale = (
        alt.Scale(type="log", nice=False)
        if logarithmic and curves["loss"].min() > 0
        else alt.Scale(zero=False)
    )
    thick = "datum.line == 'mean'"
    return (
        alt.Chart(curves)
        .mark_line()
        .encode(
            x=alt.X(
                "progress:Q",
                title="Share of optimisation steps",
                axis=alt.Axis(format=".0%", tickCount=10, labelFlush=False),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y(
                "loss:Q",
                title="Training loss, smoothed",
                scale=scale,
                axis=alt.Axis(labelFlush=False),
            ),
            color=looks.colour(shown),
            strokeDash=looks.dash(shown),
            detail="seed:N",
            strokeWidth=alt.condition(thick, alt.value(2.5), alt.value(1.0)),
            opacity=alt.when(~pick)
            .then(alt.value(0.08))
            .when(thick)
            .then(alt.value(1.0))
            .otherwise(alt.value(0.4)),
            tooltip=[
                alt.Tooltip("entry:N", title="Entry"),
                alt.Tooltip("seed:N", title="Seed"),
                alt.Tooltip("progress:Q", title="Steps", format=".0%"),
                alt.Tooltip("loss:Q", title="Loss", format=".4~r"),
            ],
        )
        .add_params(pick)
        .properties(height=320 + FRAME)
    )
