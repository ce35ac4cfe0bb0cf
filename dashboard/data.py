"""The results folder as the page sees it: read once per state of the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from cab.errors import StoreError
from cab.locations import DEFAULT_RESULTS
from cab.result_sources import ResultSources
from cab.scoring.boards import board
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.origin import Origin, origin_of
from cab.scoring.quality import QualityBoard
from cab.scoring.resolution import Resolution, resolution
from cab.scoring.results import Results, load_results
from cab.scoring.short_runs import ShortRuns, short_runs
from cab.track import Setting, Track


@dataclass(frozen=True)
class Snapshot:
    """The current rows of a results folder. Shared between sessions: nobody may change them."""

    folder: Path
    fingerprint: str
    """Of the names, sizes and times of all files; changes whenever a run adds one."""
    files: int
    """Of the results folder itself"""
    reference: bool
    """Whether the reference results are among the rows"""
    results: Results

    @property
    def sources(self) -> ResultSources:
        """Where the rows were read from."""
        return ResultSources.at(self.folder, self.reference)


def results_folder() -> Path:
    """The folder that ``cab dashboard`` was given, or the default one; below the working folder in
    its short form, as the user wrote it.
    """
    folder = Path(os.environ.get("CAB_RESULTS") or DEFAULT_RESULTS)
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def reference_wanted() -> bool:
    """What ``cab dashboard`` was asked to begin with: the reference results are shown unless it was
    started with ``--no-reference``.
    """
    return os.environ.get("CAB_REFERENCE") != "off"


def read_snapshot(folder: Path, reference: bool = True) -> Snapshot:
    """The current rows of a folder, with the reference results beside them or without.

    Raises:
        StoreError: the folder, or a file in it, cannot be read.
    """
    digest = hashlib.sha256()
    sources = ResultSources.at(folder, reference)
    for path in sources.files():
        try:
            state = path.stat()
        except OSError as error:
            raise StoreError(
                f"cannot read {path}: {error.strerror or error}; reload the page"
            ) from error
        digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
    return _read(folder, digest.hexdigest(), len(sources.own.files()), reference)


@st.cache_resource(max_entries=4, show_spinner="Reading results ...")
def _read(folder: Path, fingerprint: str, files: int, reference: bool) -> Snapshot:
    results = load_results(ResultSources.at(folder, reference))
    return Snapshot(folder, fingerprint, files, reference, results)


def _state_of(snapshot: Snapshot) -> tuple[str, str, bool]:
    return str(snapshot.folder), snapshot.fingerprint, snapshot.reference


@st.cache_resource(
    max_entries=128, hash_funcs={Snapshot: _state_of}, show_spinner="Computing the index ..."
)
def quality_of(snapshot: Snapshot, track: Track, tasks: tuple[str, ...]) -> QualityBoard:
    """Standings over some tasks (none named: over all of the track)."""
    return board(snapshot.results, track, tasks)


@st.cache_resource(max_entries=128, hash_funcs={Snapshot: _state_of}, show_spinner=False)
def resolution_of(snapshot: Snapshot, track: Track, tasks: tuple[str, ...]) -> Resolution | None:
    """What the standings over some tasks can tell; None below two ranked entries."""
    return resolution(quality_of(snapshot, track, tasks))


@st.cache_resource(max_entries=32, hash_funcs={Snapshot: _state_of}, show_spinner=False)
def short_runs_of(snapshot: Snapshot, setting: Setting) -> list[ShortRuns]:
    """Runs at other numbers of steps than the recipes' own; mostly there are none."""
    return short_runs(snapshot.sources, snapshot.results, setting)


def costs_of(
    snapshot: Snapshot, track: Track, phase: str, entries: Iterable[str]
) -> list[CostPoint]:
    """Points of some entries, by entry and length."""
    return [p for entry in entries for p in _costs_of_entry(snapshot, track, phase, entry)]


# One cache line per entry, so that a change of filter computes only what it adds.
@st.cache_resource(
    max_entries=4096, hash_funcs={Snapshot: _state_of}, show_spinner="Computing intervals ..."
)
def _costs_of_entry(snapshot: Snapshot, track: Track, phase: str, entry: str) -> list[CostPoint]:
    rows = snapshot.results.select(kind="efficiency", phase=phase, entry=entry)
    return cost_points(Results(rows, 0), track)


@st.cache_resource(max_entries=256, hash_funcs={Snapshot: _state_of}, show_spinner=False)
def origin_in(snapshot: Snapshot, track: Track, kind: str) -> Origin:
    """Which code measured the rows of one kind of a track."""
    return origin_of(rows_of(snapshot, track, kind))


def rows_of(snapshot: Snapshot, track: Track, kind: str | None = None) -> pd.DataFrame:
    """The rows of one track."""
    return snapshot.results.select(track, kind=kind)
