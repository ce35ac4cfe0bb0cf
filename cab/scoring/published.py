"""Published tables: leaderboards of their own, never mixed with measured rows.

A table is a Parquet file of result rows (``kind`` and ``label`` published, ``source`` the file
that each number was read in). A number that an erratum corrects is there twice: as printed, and as
a row of the run ``errata``; ``message`` names the erratum on both. Without being asked for, errata
are not applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cab.errors import StoreError, UnknownEntryError
from cab.label import Label
from cab.scoring.compositional import CAB_CONSTANTS, Constant, compositional_index
from cab.scoring.crossover import cab_efficiency_length
from cab.store import ResultStore

FOLDER = Path(__file__).resolve().parents[2] / "results" / "published"
ERRATA = "errata"
"""Run of the rows that replace others; ``NAME+errata`` names the corrected table"""
MARKS = " | "
"""Between the errata that a row's message names"""
BASELINE = "vanilla"
"""What CAB calls softmax attention"""

_PLACE = ["pattern", "task", "dataset", "backbone", "attention", "metric", "length_q"]


@dataclass(frozen=True)
class PublishedStanding:
    """An attention on CAB's own leaderboard of one pattern."""

    attention: str
    tasks: dict[str, float]
    """Compositional index by task, recomputed from the published numbers"""
    average: float
    """Their mean; not a number where a task is missing"""
    delta: float
    """Over vanilla's average"""
    printed: float
    """The average as CAB prints it"""
    rank: int | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class EfficiencyLength:
    """CAB's length from which an attention takes less than vanilla."""

    attention: str
    quantity: str
    """time or memory"""
    printed: float
    recomputed: float
    """From the costs, where CAB prints them; else not a number"""


def published_names() -> list[str]:
    """Tables that come with this project, and each with its errata applied."""
    found = sorted(path.stem for path in FOLDER.glob("*.parquet"))
    return [name for stem in found for name in (stem, f"{stem}+{ERRATA}")]


def load_published(name: str) -> pd.DataFrame:
    """Rows of a published table, as printed; ``NAME+errata`` has corrected rows in place of others.

    Raises:
        UnknownEntryError: there is no such table.
        StoreError: the tables are not installed.
    """
    known = published_names()
    if not known:
        raise StoreError(f"no published tables in {FOLDER}; use a checkout of the repository")
    if name not in known:
        raise UnknownEntryError("published table", name, known)
    stem, plus, _ = name.partition("+")
    rows = ResultStore(FOLDER, Label.PUBLISHED).read_file(FOLDER / f"{stem}.parquet").to_pandas()
    corrected = rows["run_id"] == ERRATA
    if not plus:
        return rows[~corrected].reset_index(drop=True)
    rows = rows.assign(_corrected=corrected).sort_values("_corrected", kind="stable")
    kept = rows.drop_duplicates(_PLACE, keep="last").drop(columns="_corrected")
    return kept.sort_index().reset_index(drop=True)


def marks(rows: pd.DataFrame) -> list[str]:
    """What errata say of the rows, each once."""
    said = {mark for text in rows["message"].dropna() for mark in str(text).split(MARKS)}
    return sorted(said, key=_number)


def _number(text: str) -> tuple[str, int, str]:
    digits = "".join(c for c in text.partition(":")[0] if c.isdigit())
    return text[:1], int(digits or 0), text


def published_board(
    rows: pd.DataFrame, pattern: str, constants: Iterable[Constant] = CAB_CONSTANTS
) -> list[PublishedStanding]:
    """CAB's leaderboard of a pattern, recomputed with CAB's constants from CAB's numbers."""
    index = compositional_index(rows, constants)
    index = index[index["pattern"] == pattern]
    printed = rows[
        (rows["pattern"] == pattern) & (rows["metric"] == "CI") & (rows["task"] == "average")
    ]
    averages = dict(zip(printed["attention"], printed["value"], strict=True))
    tasks = sorted(set(index["task"]) - {"average"})
    values: dict[str, dict[str, float]] = {}
    for row in index.itertuples(index=False):
        values.setdefault(str(row.attention), {})[str(row.task)] = float(str(row.value))
    base = values.get(BASELINE, {}).get("average", math.nan)
    order = sorted(values, key=lambda name: (-values[name].get("average", -math.inf), name))
    return [
        PublishedStanding(
            attention=name,
            tasks={task: values[name][task] for task in tasks if task in values[name]},
            average=values[name].get("average", math.nan),
            delta=values[name].get("average", math.nan) - base,
            printed=float(averages.get(name, math.nan)),
            rank=place if "average" in values[name] else None,
            missing=tuple(task for task in tasks if task not in values[name]),
        )
        for place, name in enumerate(order, start=1)
    ]


def efficiency_lengths(rows: pd.DataFrame) -> list[EfficiencyLength]:
    """CAB's efficiency lengths, recomputed for the attentions whose costs it prints."""
    found = []
    # CAB leaves the shortest length out of the line of times, not out of that of memory.
    for quantity, metric, skip in (("time", "time_ms", 1), ("memory", "memory_mib", 0)):
        printed = rows[rows["metric"] == f"efficiency_length_{quantity}"]
        costs = _costs(rows, metric)
        for name, value in zip(printed["attention"], printed["value"], strict=True):
            recomputed = math.nan
            if name in costs and BASELINE in costs:
                lengths = sorted(costs[BASELINE])
                recomputed = cab_efficiency_length(
                    lengths,
                    [costs[BASELINE][length] for length in lengths],
                    [costs[name][length] for length in lengths],
                    skip,
                )
            found.append(EfficiencyLength(str(name), quantity, float(value), recomputed))
    return found


def _costs(rows: pd.DataFrame, metric: str) -> Mapping[str, Mapping[int, float]]:
    """By attention and length."""
    found: dict[str, dict[int, float]] = {}
    part = rows[rows["metric"] == metric]
    for name, length, value in zip(part["attention"], part["length_q"], part["value"], strict=True):
        found.setdefault(str(name), {})[int(length)] = float(value)
    return found
