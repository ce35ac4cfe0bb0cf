"""The rows of a store as a data frame in which every entry appears once.

A store may hold several versions of one mechanism or task. Only the latest version of a task is
compared, and only the latest code of a mechanism; numbers of different versions never share a
table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cab.store import ResultStore

_IDENTITY = ["kind", "pattern", "scale", "device"]


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


def current(rows: pd.DataFrame, defaults: dict[str, dict[str, Any]] | None = None) -> Results:
    """The latest rows of every cell, of the latest code of every task and mechanism."""
    rows = rows[rows["kind"].isin(["quality", "efficiency"])]
    rows = rows.sort_values("recorded_at", kind="stable")
    total = len(rows)
    rows = _last(rows, ["cell"], "run_id")
    rows = _last(rows, [*_IDENTITY, "task"], "task_hash")
    rows = _last(rows, [*_IDENTITY, "task"], "data_hash")
    rows = rows.assign(entry=_entry_names(rows, defaults))
    rows = _last(rows, [*_IDENTITY, "entry", "task"], "attention_hash")
    return Results(rows.reset_index(drop=True), total - len(rows))


def _last(rows: pd.DataFrame, group: list[str], version: str) -> pd.DataFrame:
    """Rows whose ``version`` is the most recently recorded one of their group."""
    if rows.empty:
        return rows
    newest = rows.groupby(group, dropna=False)[version].transform("last")
    return rows[(rows[version] == newest) | newest.isna()]


def _entry_names(rows: pd.DataFrame, defaults: dict[str, dict[str, Any]] | None) -> pd.Series:
    if defaults is None:
        from cab.registries import ATTENTIONS

        defaults = {info.id: dict(info.defaults()) for info in ATTENTIONS.infos()}
    known = defaults
    names: dict[tuple[str, str], str] = {}

    def name(attention: str, options: str | None) -> str:
        key = (attention, options or "{}")
        if key not in names:
            usual = known.get(attention)
            given = json.loads(key[1])
            changed = {k: v for k, v in given.items() if usual is not None and usual.get(k) != v}
            words = ", ".join(f"{k}={v}" for k, v in changed.items())
            names[key] = f"{attention} ({words})" if words else attention
        return names[key]

    pairs = zip(rows["attention"], rows["attention_options"], strict=True)
    return pd.Series([name(a, o) for a, o in pairs], index=rows.index, dtype="object")
