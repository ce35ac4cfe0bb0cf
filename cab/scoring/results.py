"""The rows of a store as a data frame in which every entry appears once.

A store may hold several versions of one mechanism or task. Only the latest version of a task is
compared, and only the latest code of a mechanism; numbers of different versions never share a
table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cab.schema import Status
from cab.store import ResultStore

MEASURED = ("quality", "efficiency")
"""Kinds of rows that are ranked; published ones are a leaderboard of their own."""

_IDENTITY = ["kind", "pattern", "scale", "device"]

_SCORE_COLUMNS = (
    "kind", "status", "cell", "run_id", "recorded_at", "attention", "grade", "attention_options",
    "attention_hash", "pattern", "task", "task_hash", "data_hash", "scale", "device", "seed",
    "phase", "metric", "value", "higher_is_better", "parameters_attention",
)  # fmt: skip
"""What ranking by quality reads."""

_COST_COLUMNS = (
    "kind", "status", "message", "cell", "run_id", "recorded_at", "attention", "grade",
    "attention_options", "attention_hash", "pattern", "task", "task_hash", "data_hash", "scale",
    "device", "seed", "phase", "length_q", "batch", "heads", "head_dim", "dtype", "metric", "value",
    "samples",
)  # fmt: skip
"""What ranking by cost reads."""

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Results:
    """Current rows, one set per cell, with an ``entry`` column that names what is ranked."""

    rows: pd.DataFrame
    superseded: int
    """Rows of older code or data that were left out"""

    def select(self, **equal: Any) -> pd.DataFrame:
        """Rows whose columns have the given values; None leaves a column free."""
        rows = self.rows
        for column, value in equal.items():
            if value is not None:
                rows = rows[rows[column] == value]
        return rows


def load_results(store: ResultStore, defaults: dict[str, dict[str, Any]] | None = None) -> Results:
    """Read a store and keep what is current.

    Args:
        store: the results folder.
        defaults: default options by attention id; options that differ from them become part of the
            entry's name. None: looked up in the registry.
    """
    return current(store.read().to_pandas(), defaults)


def load_scores(store: ResultStore, defaults: dict[str, dict[str, Any]] | None = None) -> Results:
    """The current test scores, references, analyses and failures alone, words as categories: what
    ranking by quality needs, at a fraction of the time and memory of `load_results`.
    """
    table = store.read(_SCORE_COLUMNS, ["quality"], dictionaries=True, keep=_scored)
    return current(table.to_pandas(ignore_metadata=True), defaults)


def _scored(table: pa.Table) -> NDArray[np.bool_]:
    """Test scores with what they are read against and analyses, and the ends of failed cells;
    validation scores, and curves and times of training, decide nothing.
    """
    phase, metric = _Words.of(table["phase"]), _Words.of(table["metric"])
    scored = phase.are(lambda word: word in ("eval", "reference", "analysis"))
    scored &= ~metric.are(lambda word: word.startswith("validation_"))
    return scored | _failed(table)


def _failed(table: pa.Table) -> NDArray[np.bool_]:
    return ~_Words.of(table["status"]).are(lambda word: word == Status.OK.value)


@dataclass(frozen=True)
class _Words:
    """A dictionary column: every row's place among its words, -1 where there is none."""

    places: NDArray[np.int32]
    words: tuple[str, ...]

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> _Words:
        whole = column.combine_chunks()
        if isinstance(whole, pa.ChunkedArray):  # of no chunk at all
            return cls(np.array([], dtype=np.int32), ())
        places = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return cls(places, tuple(whole.dictionary.to_pylist()))

    def are(self, wanted: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Rows whose word is wanted; no word is not."""
        found = np.array([*(wanted(word) for word in self.words), False], dtype=bool)
        return found[self.places]


def load_costs(
    store: ResultStore,
    metrics: Collection[str],
    defaults: dict[str, dict[str, Any]] | None = None,
) -> Results:
    """The current rows of some measurements of cost alone, words as categories."""

    def keep(table: pa.Table) -> NDArray[np.bool_]:
        return _Words.of(table["metric"]).are(lambda word: word in metrics) | _failed(table)

    table = store.read(_COST_COLUMNS, ["efficiency"], dictionaries=True, keep=keep)
    return current(table.to_pandas(ignore_metadata=True), defaults)


def joined(*parts: Results) -> Results:
    """Rows of different kinds in one frame."""
    frames = [part.rows.astype(_plain(part.rows)) for part in parts]
    rows = pd.concat(frames, ignore_index=True)
    return Results(rows, sum(part.superseded for part in parts))


def _plain(rows: pd.DataFrame) -> dict[str, str]:
    return {str(n): "object" for n, t in rows.dtypes.items() if isinstance(t, pd.CategoricalDtype)}


def current(rows: pd.DataFrame, defaults: dict[str, dict[str, Any]] | None = None) -> Results:
    """The latest rows of every cell, of the latest code of every task and mechanism."""
    rows = rows[rows["kind"].isin(MEASURED)]
    times = pd.DatetimeIndex(rows["recorded_at"]).asi8
    if (times[1:] < times[:-1]).any():
        rows = rows.sort_values("recorded_at", kind="stable")
    total = len(rows)
    entries = _entry_names(rows, defaults)
    codes = {name: codes_of(rows[name]) for name in (*_IDENTITY, "task", "cell", *_VERSIONS)}
    codes["entry"] = codes_of(entries)
    kept = np.arange(total)
    for version, group in (
        ("run_id", ["cell"]),
        ("task_hash", [*_IDENTITY, "task"]),
        ("data_hash", [*_IDENTITY, "task"]),
        ("attention_hash", [*_IDENTITY, "entry", "task"]),
    ):
        kept = kept[_newest(codes[version][kept], [codes[name][kept] for name in group])]
    rows = rows.iloc[kept].assign(entry=entries.iloc[kept])
    return Results(rows.reset_index(drop=True), total - len(rows))


_VERSIONS = ("run_id", "task_hash", "data_hash", "attention_hash")


def codes_of(column: pd.Series) -> Codes:
    """A number for every distinct value, -1 for a missing one."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy().astype(np.int64)
    return pd.factorize(column)[0].astype(np.int64)


def group_codes(columns: Sequence[Codes]) -> Codes:
    """A number from 0 for every distinct combination of codes."""
    combined, bound = np.zeros(len(columns[0]), dtype=np.int64), 1
    for codes in columns:
        size = int(codes.max(initial=0)) + 2
        if bound * size > _MOST:
            combined = pd.factorize(combined)[0].astype(np.int64)
            bound = int(combined.max(initial=0)) + 1
        combined = combined * size + codes + 1
        bound *= size
    return pd.factorize(combined)[0].astype(np.int64)


_MOST = 2**62
"""What a number of 64 bits holds with room to spare"""


def _newest(version: Codes, group: Sequence[Codes]) -> NDArray[np.bool_]:
    """Which rows have the version that was recorded last in their group; rows are in order of
    time, and a version that nobody recorded (-1) supersedes nothing.
    """
    place = group_codes(group)
    newest = np.full(int(place.max(initial=-1)) + 1, -1, dtype=np.int64)
    known = version >= 0
    # Of several assignments to one place the last one, which is the latest, stays.
    newest[place[known]] = version[known]
    return (version == newest[place]) | (newest[place] < 0)


def _entry_names(rows: pd.DataFrame, defaults: dict[str, dict[str, Any]] | None) -> pd.Series:
    """Name of what is ranked: the attention, with the options that differ from its defaults."""
    if defaults is None:
        from cab.registries import ATTENTIONS

        defaults = {info.id: dict(info.defaults()) for info in ATTENTIONS.infos()}
    place = group_codes([codes_of(rows[name]) for name in ("attention", "attention_options")])
    first = np.unique(place, return_index=True)[1]
    pairs = rows[["attention", "attention_options"]].iloc[first].astype(object)
    names = [
        _entry_name(str(attention), options if isinstance(options, str) else "{}", defaults)
        for attention, options in pairs.itertuples(index=False)
    ]
    distinct = sorted(set(names))
    code_of = {name: code for code, name in enumerate(distinct)}
    codes = np.array([code_of[name] for name in names], dtype=np.int64)[place]
    if isinstance(rows["attention"].dtype, pd.CategoricalDtype):
        return pd.Series(
            pd.Categorical.from_codes(codes, categories=pd.Index(distinct)), index=rows.index
        )
    return pd.Series(np.array(distinct, dtype=object)[codes], index=rows.index, dtype="object")


def _entry_name(attention: str, options: str, defaults: dict[str, dict[str, Any]]) -> str:
    usual = defaults.get(attention)
    if usual is None:
        return attention
    changed = {k: v for k, v in json.loads(options).items() if usual.get(k) != v}
    words = ", ".join(f"{k}={v}" for k, v in changed.items())
    return f"{attention} ({words})" if words else attention
