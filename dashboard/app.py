"""The leaderboard page: ``cab dashboard`` starts it, with CAB_RESULTS naming the results folder.

A rank is read within one pattern, one scale and one device; nothing on the page mixes them.
"""

from __future__ import annotations

import streamlit as st

from cab.errors import StoreError
from dashboard import cost, entries, provenance, quality, samples, training
from dashboard.data import Snapshot, read_snapshot, reference_wanted, results_folder
from dashboard.filters import choose
from dashboard.wording import plain, run_command

# Streamlit's own margins take 160 pixels: without them a window of 1280 has room for the intervals.
_ROOM = "<style>.stMainBlockContainer { padding: 3.5rem 2rem 4rem }</style>"

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
    st.html(_ROOM)
    st.title("Comprehensive Attention Benchmark")
    st.caption("What attention mechanisms give, and what they cost, over four attention patterns.")
    # Drawn before anything is read, so that it is there when nothing is left to show.
    with st.sidebar:
        reference = st.toggle(
            "Reference results",
            value=reference_wanted(),
            key="reference",
            help="Measured by the project; they come with cab. Your own rows count before them.",
        )
    try:
        snapshot = read_snapshot(results_folder(), reference)
    except StoreError as error:
        st.error(plain(str(error)))
        return
    if snapshot.results.rows.empty:
        command = run_command(snapshot.folder, "--attn all", "--pattern causal-cross")
        st.info(f"No results in {plain(str(snapshot.folder))} yet. Measure some: `{command}`")
        return
    if not snapshot.files:
        command = run_command(snapshot.folder, "--attn all", "--pattern causal-cross")
        st.info(
            f"Nothing measured in {plain(str(snapshot.folder))} yet: these are the reference "
            f"results that come with cab. Measure your own: `{command}`"
        )
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
