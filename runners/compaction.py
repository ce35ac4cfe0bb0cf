"""A results folder in few files: what readers would leave out is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cab.errors import StoreError
from cab.schema import run_order
from cab.store import ResultStore

_IDENTITY = (
    "kind", "attention", "attention_options", "pattern", "task", "scale", "seed", "device",
)  # fmt: skip
"""What was measured, whatever the code was; cells of one identity replace each other. Costs are of
a machine besides."""


Run = Sequence[Mapping[str, object]]
"""All rows of one run of a cell"""


def compact(
    store: ResultStore, most_bytes: int, sampled: Callable[[Sequence[Run]], set[str]] | None = None
) -> list[Path]:
    """Write the run that counts of the newest cell of every identity into one file for each kind,
    scale and device, and remove all other files, with the samples of cells that are gone.

    The new files are complete before an old one is removed: who is interrupted has rows twice,
    which readers count once.

    Args:
        store: to be compacted.
        most_bytes: that the new files and the samples may have in all.
        sampled: of the runs that are kept, the cells whose samples are kept too; None: all.

    Raises:
        StoreError: the files would be larger, or cannot be written; nothing is removed then.
    """
    old = store.files()
    rows = store.read().to_pylist()
    if store.complaints():
        raise StoreError(f"{'; '.join(store.complaints())}: move such files away first")
    cells: dict[tuple[str, str], list[dict[str, object]]] = {}
    for row in rows:
        cells.setdefault((row["cell"], row["run_id"] or ""), []).append(row)
    newest: dict[tuple[object, ...], list[dict[str, object]]] = {}
    counting: dict[str, list[dict[str, object]]] = {}
    for run in sorted(cells.values(), key=_run_order):
        counting[str(run[0]["cell"])] = run
    for run in sorted(counting.values(), key=_last):
        first = run[0]
        machine = first["device_name"] if first["kind"] == "efficiency" else None
        newest[(*(first[name] for name in _IDENTITY), machine)] = run
    groups: dict[str, list[dict[str, object]]] = {}
    for run in newest.values():
        first = run[0]
        name = f"{first['kind']}-{first['scale']}-{first['device']}"
        groups.setdefault(name, []).extend(run)
    schema = store.read().schema
    written = []
    temporaries = []
    for name, group in sorted(groups.items()):
        group.sort(key=_order)
        table = pa.Table.from_pylist(group, schema=schema)
        try:
            temporary = store.beside.temporary(name)
            pq.write_table(
                table, temporary, compression="zstd", compression_level=19,
                write_page_checksum=True,
            )  # fmt: skip
        except OSError as error:
            raise StoreError(f"cannot write to {store.root}: {error.strerror or error}") from error
        temporaries.append((temporary, store.root / f"{name}.parquet"))
    kept = {str(run[0]["cell"]) for run in newest.values()}
    if sampled is not None:
        kept = sampled(list(newest.values()))
    total = sum(temporary.stat().st_size for temporary, _ in temporaries)
    total += sum(path.stat().st_size for path in store.made.files(kept))
    if total > most_bytes:
        for temporary, _ in temporaries:
            temporary.unlink()
        raise StoreError(
            f"{store.root} would have {total / 2**20:.1f} MiB; it may have {most_bytes / 2**20:.0f}"
        )
    for temporary, target in temporaries:
        temporary.rename(target)
        written.append(target)
    _remove([path for path in old if path not in written])
    store.made.keep_only(kept)
    return written


def _last(run: Sequence[dict[str, object]]) -> float:
    """Time of its last row."""
    times = [row["recorded_at"] for row in run]
    return max((t.timestamp() for t in times if isinstance(t, datetime)), default=0.0)


def _run_order(run: Sequence[dict[str, object]]) -> tuple[bool, float]:
    return run_order((str(row["status"]) for row in run), _last(run))


def _order(row: dict[str, object]) -> tuple[str, ...]:
    names = ("attention", "pattern", "task", "seed", "cell", "phase", "length_q", "metric")
    return tuple(str(row[name]) for name in names)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
