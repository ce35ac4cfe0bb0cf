"""The results folder as the page sees it: read once per state of the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from cab.cli.app import DEFAULT_RESULTS
from cab.cli.tables import board
from cab.errors import StoreError
from cab.scoring.efficiency import CostPoint, cost_points
from cab.scoring.quality import QualityBoard
from cab.scoring.results import Results, load_results
from cab.store import ResultStore


@dataclass(frozen=True)
class Snapshot:
    """The current rows of a results folder. Shared between sessions: nobody may change them."""

    folder: Path
    fingerprint: str
    """Of the folder's file names, sizes and times; changes whenever a run adds a file."""
    files: int
    results: Results


@dataclass(frozen=True)
class Track:
    """What may share a table: one pattern, one scale, one device."""

    pattern: str
    scale: str
    device: str


def results_folder() -> Path:
    """The folder that ``cab dashboard`` was given, or the default one; below the working folder in
    its short form, as the user wrote it.
    """
    folder = Path(os.environ.get("CAB_RESULTS") or DEFAULT_RESULTS)
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def read_snapshot(folder: Path) -> Snapshot:
    """The folder's current rows.

    Raises:
        StoreError: the folder, or a file in it, cannot be read.
    """
    digest = hashlib.sha256()
    files = ResultStore(folder).files()
    for path in files:
        try:
            state = path.stat()
        except OSError as error:
            raise StoreError(
                f"cannot read {path}: {error.strerror or error}; reload the page"
            ) from error
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    return _read(folder, digest.hexdigest(), len(files))


@st.cache_resource(max_entries=4, show_spinner="Reading results ...")
def _read(folder: Path, fingerprint: str, files: int) -> Snapshot:
    return Snapshot(folder, fingerprint, files, load_results(ResultStore(folder)))


def _state_of(snapshot: Snapshot) -> tuple[str, str]:
    return str(snapshot.folder), snapshot.fingerprint


@st.cache_resource(
    max_entries=128, hash_funcs={Snapshot: _state_of}, show_spinner="Computing the index ..."
)
def quality_of(snapshot: Snapshot, track: Track, tasks: tuple[str, ...]) -> QualityBoard:
    """Standings over some tasks (none named: over all of the track)."""
    return board(snapshot.results, track.pattern, track.scale, track.device, tasks)


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
    return cost_points(Results(rows, 0), track.pattern, track.scale, track.device)


def rows_of(snapshot: Snapshot, track: Track, kind: str | None = None) -> pd.DataFrame:
    """The rows of one track."""
    return snapshot.results.select(
        kind=kind, pattern=track.pattern, scale=track.scale, device=track.device
    )
