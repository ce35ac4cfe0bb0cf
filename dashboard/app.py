"""The leaderboard page: ``cab dashboard`` starts it, with CAB_RESULTS naming the results folder.

A rank is read within one pattern, one scale and one device; nothing on the page mixes them.
"""

from __future__ import annotations

import streamlit as st

from cab.errors import StoreError
from dashboard import cost, entries, provenance, quality, samples, training
from dashboard.data import Snapshot, read_snapshot, results_folder
from dashboard.filters import choose
from dashboard.wording import plain, run_command

SECTIONS = {
    "Quality": quality.show,
    "Cost": cost.show,
    "Training": training.show,
    "Samples": samples.show,
    "Entries": entries.show,
}


def main() -> None:
    """The whole page, from top to bottom; Streamlit runs it anew after every click."""
    st.set_page_config(page_title="Comprehensive Attention Benchmark", layout="wide")
    st.title("Comprehensive Attention Benchmark")
    st.caption("What attention mechanisms give, and what they cost, over four attention patterns.")
    try:
        snapshot = read_snapshot(results_folder())
    except StoreError as error:
        st.error(plain(str(error)))
        return
    if snapshot.results.rows.empty:
        command = run_command(snapshot.folder, "--attn all", "--pattern causal-cross")
        st.info(f"No results in {plain(str(snapshot.folder))} yet. Measure some: `{command}`")
        return
    _sections(snapshot)


def _sections(snapshot: Snapshot) -> None:
    choice = choose(snapshot)
    section = st.segmented_control(
        "Section",
        list(SECTIONS),
        default="Quality",
        required=True,
        key="section",
        label_visibility="collapsed",
    )
    SECTIONS[section](snapshot, choice)
    provenance.show(snapshot, choice)


main()
