"""What of a Parquet file counts as result rows: files of other tools, and damaged rows, are left
out and named, so that the rest can be shown.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cab.schema import Row
from cab.visible import visible

REQUIRED = ("cell", "kind", "attention", "pattern")
"""Columns without which a row says nothing"""
_OF_SOME = {
    "scale": ("kind", ("quality", "efficiency")),
    "device": ("kind", ("quality", "efficiency")),
    "seed": ("kind", ("quality", "efficiency")),
    "task": ("kind", ("quality",)),
    "higher_is_better": ("phase", ("eval",)),
}
"""Columns that some rows cannot do without, and how these are known"""
_JSON = ("attention_options", "environment", "witness")
"""Columns that are parsed, and so may not be changed"""
_OPTIONS = "attention_options"
_DEFAULTS: dict[str, Any] = {"status": Row.status, "metric": Row.metric}


def lacking(names: Collection[str]) -> list[str]:
    """Columns that a file of result rows has, and this one does not."""
    return [name for name in REQUIRED if name not in names]


def complete_rows(table: pa.Table) -> tuple[NDArray[np.bool_] | None, list[str]]:
    """Which rows have what every row needs (None: all), as far as its columns are in the table, and
    what is wrong with the others.
    """
    kept, wrong = np.ones(table.num_rows, dtype=bool), []
    for name in REQUIRED:
        if name in table.column_names and table[name].null_count:
            missing = table[name].is_null().to_numpy()
            wrong.append(f"{missing.sum()} rows without {name} left out")
            kept &= ~missing
    return (None if kept.all() else kept), wrong


def unrankable_rows(table: pa.Table) -> list[str]:
    """What rows lack without which they cannot be ranked, though they are results."""
    wrong = []
    for name, (by, words) in _OF_SOME.items():
        if not {name, by} <= set(table.column_names) or not table[name].null_count:
            continue
        missing = table[name].is_null().to_numpy() & pc.is_in(
            table[by].cast(pa.string()), pa.array(words)
        ).to_numpy(zero_copy_only=False)
        if missing.any():
            wrong.append(f"{missing.sum()} rows without {name} not ranked")
    return wrong


def rankable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that have what ranking needs."""
    kept = np.ones(len(rows), dtype=bool)
    for name, (by, words) in _OF_SOME.items():
        if name in rows and by in rows and rows[name].hasnans:
            kept &= ~(rows[name].isna() & rows[by].isin(words)).to_numpy()
    return rows if kept.all() else rows[kept]


def unreadable_options(table: pa.Table) -> list[str]:
    """What is wrong with the options of its rows, where they were read."""
    if _OPTIONS not in table.column_names:
        return []
    words = pc.unique(table[_OPTIONS]).to_pylist()
    return ["options that are no JSON object"] if any(options_of(w) is None for w in words) else []


def options_of(words: str | None) -> dict[str, Any] | None:
    """Options as they are recorded; None where that is no JSON object."""
    try:
        found = json.loads(words or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def cleaned(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with nothing in its words that acts on a terminal (`cab.visible`), and with the
    usual word where a row that has one lacks it.
    """
    if name in _DEFAULTS and column.null_count:
        column = pc.fill_null(column, pa.scalar(_DEFAULTS[name], pa.string()))
    words = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if name in _JSON or not pa.types.is_string(words) or not any(map(_suspicious, column.chunks)):
        return column
    plain = column.cast(pa.string()).combine_chunks()
    plain = plain.dictionary_encode()
    known = plain.dictionary.to_pylist()
    shown = [visible(word) for word in known]
    if shown == known:
        return column
    taken = pc.take(pa.array(shown, pa.string()), plain.indices)
    return pa.chunked_array([taken.dictionary_encode().cast(column.type)])


def _suspicious(array: pa.Array) -> bool:
    """Whether there is a byte in it that is not printable ASCII; a quick look at all of them."""
    words = array.dictionary if isinstance(array, pa.DictionaryArray) else array
    return any(_unusual(buffer) for buffer in _texts(words))


def _texts(words: pa.Array) -> Iterator[pa.Buffer]:
    content = words.buffers()[2]
    if content is not None and content.size:
        yield content


def _unusual(content: pa.Buffer) -> bool:
    # Below the space the difference wraps around.
    return bool((np.frombuffer(content, dtype=np.uint8) - np.uint8(0x20) > 0x5E).any())
