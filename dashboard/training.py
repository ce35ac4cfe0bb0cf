"""Training: loss curves and what the training took."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from cab.cli.tables import plus_minus
from cab.scoring.intervals import mean_interval
from dashboard.data import Snapshot, rows_of
from dashboard.filters import Choice
from dashboard.looks import FRAME, EntryLooks, highlight
from dashboard.wording import INTERVAL_OF_SEEDS, plain, run_command


def show(snapshot: Snapshot, choice: Choice) -> None:
    """The section."""
    track = choice.track
    everything = rows_of(snapshot, track, "quality")
    rows = choice.of(everything)
    rows = rows[(rows["phase"] == "train") & (rows["status"] == "ok")]
    if rows.empty:
        command = run_command(
            snapshot.folder,
            "--attn all",
            f"--pattern {track.pattern}",
            f"--scale {track.scale}",
            "--measure quality",
        )
        st.info(f"No training runs for this choice. Measure some: `{command}`")
        return
    st.subheader(f"Training: {track.pattern}, {track.scale}, {track.device}")
    task: str = st.selectbox(
        "Task",
        sorted(rows["task"].unique()),
        key=f"training of {track.pattern} {track.scale} {track.device}",
    )
    rows = rows[rows["task"] == task]
    curves = curves_frame(rows)
    if curves.empty:
        st.info("Nothing was trained in this task.")
    else:
        logarithmic = st.toggle("Logarithmic loss axis", value=False)
        pairs = zip(everything["entry"], everything["attention"], strict=True)
        st.altair_chart(_chart(curves, EntryLooks(pairs), logarithmic), width="stretch")
        flat = sorted(set(rows["entry"]) - set(curves["entry"]))
        st.caption(
            "Thin lines: single seeds. Thick lines: mean over seeds. The loss is smoothed "
            "exponentially (0.9 of the past) and recorded at about fifty steps; the horizontal "
            "axis is the share of all optimisation steps."
            + (f" Without anything to train: {plain(', '.join(flat))}." if flat else "")
        )
    st.markdown("**Training runs**")
    st.dataframe(_runs_frame(rows), hide_index=True)
    st.caption(
        f"{INTERVAL_OF_SEEDS[0].upper()}{INTERVAL_OF_SEEDS[1:]}. Time is that of the optimisation, "
        "evaluations excluded. The checkpoint is the one with the best validation score."
    )


def curves_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of the loss curves: a line per entry and seed, and one for their mean."""
    points: list[dict[str, Any]] = []
    losses = rows[rows["metric"] == "train_loss"]
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
        .properties(height=320 + FRAME, title="Training loss")
    )


def _runs_frame(rows: pd.DataFrame) -> pd.DataFrame:
    found = []
    for entry, own in rows.groupby("entry"):
        losses = own[own["metric"] == "train_loss"]["value"].to_numpy(float)
        seconds = own[own["metric"] == "train_time"]["value"].to_numpy(float)
        steps = sorted({int(n) for n in own["train_steps"].dropna()})
        added = sorted({int(n) for n in own["parameters_attention"].dropna()})
        total = sorted({int(n) for n in own["parameters_total"].dropna()})
        found.append(
            {
                "Entry": entry,
                "Seeds": own["seed"].nunique(),
                "Last training loss": plus_minus(mean_interval(losses)),
                "Time (s)": plus_minus(mean_interval(seconds)),
                "Checkpoint (step)": ", ".join(str(n) for n in steps),
                "Parameters of the attention": ", ".join(f"{n:,}" for n in added),
                "Parameters of the model": ", ".join(f"{n:,}" for n in total),
            }
        )
    return pd.DataFrame(found)
