"""The rows of a store as a data frame in which every entry appears once.

A store may hold several versions of one mechanism or task, and the reference results beside the
user's own. `cab.scoring.versions` says which of them count; numbers of different versions never
share a table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from cab.admission import options_of, rankable
from cab.cost_metrics import LATENCY_RATIO, ratio_baseline
from cab.label import label_words
from cab.regularisers import STEPS, multiple_of
from cab.schema import Status
from cab.scoring.codes import codes_of, group_codes
from cab.scoring.versions import Installed, Machine, Stale, counting, installed_hashes
from cab.track import Setting, Track
from cab.visible import visible

MEASURED = ("quality", "efficiency")
"""Kinds of rows that are ranked; published ones are a leaderboard of their own."""

_SCORE_COLUMNS = (
    "kind", "status", "cell", "run_id", "recorded_at", "attention", "grade", "attention_options",
    "attention_hash", "pattern", "task", "task_hash", "data_hash", "scale", "device", "seed",
    "phase", "metric", "value", "higher_is_better", "parameters_attention", "label",
    "suite_version", "git_commit",
)  # fmt: skip
"""What ranking by quality reads."""

_COST_COLUMNS = (
    "kind", "status", "message", "cell", "run_id", "recorded_at", "attention", "grade",
    "attention_options", "attention_hash", "pattern", "task", "task_hash", "data_hash", "scale",
    "device", "seed", "phase", "length_q", "length_k", "batch", "heads", "head_dim", "dtype",
    "metric", "value", "samples", "device_name", "threads", "label", "suite_version", "git_commit",
)  # fmt: skip
"""What ranking by cost reads."""


class Readable(Protocol):
    """A results folder, or several read like one."""

    def read(
        self,
        columns: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        dictionaries: bool = False,
        keep: Callable[[pa.Table], NDArray[np.bool_]] | None = None,
    ) -> pa.Table:
        """As `cab.store.ResultStore.read`."""

    def complaints(self) -> list[str]:
        """As `cab.store.ResultStore.complaints`."""

    def remarks(self) -> list[str]:
        """As `cab.store.ResultStore.remarks`."""


@dataclass(frozen=True)
class Results:
    """Current rows, one set per cell, with an ``entry`` column that names what is ranked."""

    rows: pd.DataFrame
    superseded: int
    """Rows of older code or data that were left out"""
    stale: tuple[Stale, ...] = ()
    """Tasks on which entries have nothing but results of other code"""
    unread: tuple[str, ...] = ()
    """Files of which something is left out, and what"""
    machines: tuple[Machine, ...] = ()
    """What costs were measured on, by track"""
    multiples: tuple[float, ...] = ()
    """Multiples of a recipe's steps that were trained for and are left out here"""

    def select(self, track: Track | None = None, **equal: Any) -> pd.DataFrame:
        """Rows of a track whose columns have the given values; None leaves a column free."""
        rows = self.rows
        for column, value in ((track.about if track else {}) | equal).items():
            if value is not None:
                rows = rows[rows[column] == value]
        return rows

    def settings(self, scale: str | None = None, device: str | None = None) -> list[Setting]:
        """Scales and devices that have rows, in their order; None leaves one of them free."""
        pairs = self.rows[["scale", "device"]].drop_duplicates().itertuples(index=False)
        found = (Setting(str(s), str(d)) for s, d in pairs)
        return sorted(s for s in found if scale in (None, s.scale) and device in (None, s.device))

    def machine(self, track: Track) -> Machine | None:
        """What the costs of a track were measured on; None where no row says it."""
        return next((machine for machine in self.machines if machine.track == track), None)


def load_results(
    store: Readable,
    defaults: dict[str, dict[str, Any]] | None = None,
    cells: Collection[str] | None = None,
    steps: float = 1.0,
) -> Results:
    """Read a store and keep what is current.

    Args:
        store: the results folder, with the reference results or without.
        defaults: default options by attention id; options that differ from them become part of the
            entry's name. None: looked up in the registry.
        cells: keys of the cells to keep; None for all.
        steps: multiple of the recipes' steps that was trained for; no other one is among the rows.
    """
    rows = store.read().to_pandas()
    if cells is not None:
        rows = rows[rows["cell"].isin(list(cells))]
    return _named(current(rows, defaults, steps=steps), store)


def load_scores(
    store: Readable, defaults: dict[str, dict[str, Any]] | None = None, steps: float = 1.0
) -> Results:
    """The current test scores, references, analyses and failures alone, words as categories: what
    ranking by quality needs, at a fraction of the time and memory of `load_results`.
    """
    table = store.read(_SCORE_COLUMNS, ["quality"], dictionaries=True, keep=_scored)
    return _named(current(table.to_pandas(ignore_metadata=True), defaults, steps=steps), store)


def _named(results: Results, store: Readable) -> Results:
    return replace(results, unread=(*store.complaints(), *store.remarks()))


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
    store: Readable,
    metrics: Collection[str],
    defaults: dict[str, dict[str, Any]] | None = None,
) -> Results:
    """The current rows of some measurements of cost alone, words as categories."""

    def wanted(word: str) -> bool:
        # Ratios to any baseline go with those to softmax.
        ratios = LATENCY_RATIO in metrics and ratio_baseline(word) is not None
        return word in metrics or ratios

    def keep(table: pa.Table) -> NDArray[np.bool_]:
        return _Words.of(table["metric"]).are(wanted) | _failed(table)

    table = store.read(_COST_COLUMNS, ["efficiency"], dictionaries=True, keep=keep)
    return _named(current(table.to_pandas(ignore_metadata=True), defaults), store)


def entry_labels(rows: pd.DataFrame) -> dict[str, str]:
    """Who measured an entry's rows, by entry: ``reference``, or ``self-reported, reference``."""
    if "label" not in rows:
        return {}
    pairs = rows[["entry", "label"]].drop_duplicates().astype(object)
    found: dict[str, list[object]] = {}
    for entry, label in pairs.itertuples(index=False):
        found.setdefault(str(entry), []).append(label)
    return {entry: label_words(labels) for entry, labels in found.items()}


def joined(*parts: Results) -> Results:
    """Rows of different kinds in one frame."""
    frames = [part.rows.astype(_plain(part.rows)) for part in parts]
    rows = pd.concat(frames, ignore_index=True)
    return Results(
        rows,
        sum(part.superseded for part in parts),
        tuple(stale for part in parts for stale in part.stale),
        tuple(dict.fromkeys(line for part in parts for line in part.unread)),
        tuple(machine for part in parts for machine in part.machines),
        tuple(sorted({multiple for part in parts for multiple in part.multiples})),
    )


def _plain(rows: pd.DataFrame) -> dict[str, str]:
    return {str(n): "object" for n, t in rows.dtypes.items() if isinstance(t, pd.CategoricalDtype)}


def current(
    rows: pd.DataFrame,
    defaults: dict[str, dict[str, Any]] | None = None,
    installed: Installed = installed_hashes,
    steps: float = 1.0,
) -> Results:
    """The rows that count (`cab.scoring.versions`), in the order of their times.

    Args:
        rows: of a store.
        defaults: default options by attention id; None: looked up in the registry.
        installed: hash of the code of an attention as it is here.
        steps: multiple of the recipes' steps that was trained for. Runs of others are of another
            experiment: they are left out, and named `Results.multiples`.
    """
    rows = rankable(rows[rows["kind"].isin(MEASURED)])
    rows, multiples = _trained_for(steps, rows)
    entries = _entry_names(rows, defaults)
    found = counting(rows, entries, installed)
    rows = rows.iloc[found.kept].assign(entry=entries.iloc[found.kept])
    return Results(
        rows.reset_index(drop=True), found.superseded, found.stale, machines=found.machines,
        multiples=multiples,
    )  # fmt: skip


def _trained_for(steps: float, rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[float, ...]]:
    """The rows of one multiple of the recipes' steps, and which others there are."""
    place = group_codes([codes_of(rows["attention_options"])])
    first = np.unique(place, return_index=True)[1]
    words = rows["attention_options"].iloc[first].astype(object)
    multiples = np.array(
        [multiple_of(options_of(w if isinstance(w, str) else "{}") or {}) for w in words]
    )
    others = tuple(sorted({float(m) for m in multiples[multiples != steps] if np.isfinite(m)}))
    if (multiples == steps).all():
        return rows, others
    return rows[(multiples == steps)[place]], others


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
    given = options_of(options)
    if given is None:
        return f"{attention} (options unreadable)"
    # How long all of a table were trained stands above it, not in their names.
    changed = {k: v for k, v in given.items() if usual.get(k) != v and k != STEPS}
    words = ", ".join(f"{k}={v}" for k, v in changed.items())
    return f"{attention} ({visible(words)})" if words else attention
