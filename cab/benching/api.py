"""`cab.bench`: what ``cab bench`` measures, as a data frame."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cab.benching.frame import wide_frame
from cab.benching.order import BenchOrder
from cab.benching.targets import name_of
from cab.controls import BASELINE
from cab.errors import CabError, ContractError, UsageError
from cab.store import ResultStore

Named = str | type | Callable[..., Any]
"""A name as the command line takes it, a class, or a function of q, k and v"""
Sizes = int | str | Iterable[int]
_INSIDE = "CAB_BENCH_CALLED"


def bench(
    attention: Named | list[Named],
    *,
    pattern: str | list[str],
    lengths: Sizes = "",
    baseline: Named = BASELINE,
    phases: str | list[str] = "forward",
    batch: Sizes = 1,
    heads: Sizes = "",
    head_dim: Sizes = "",
    dtype: object = "",
    source_length: int | None = None,
    device: str = "auto",
    processes: int = 3,
    threads: int = 0,
    seconds: float | None = None,
    compiled: bool = False,
    options: Mapping[str, object] | None = None,
    preset: str = "",
    out: str | Path | None = None,
) -> pd.DataFrame:
    """See `cab.bench`."""
    _require_outside()
    several = attention if isinstance(attention, list) else [attention]
    order = BenchOrder(
        attentions=[name_of(one) for one in several],
        patterns=[pattern] if isinstance(pattern, str) else list(pattern),
        lengths=_words(lengths),
        source_length=source_length,
        phases=[phases] if isinstance(phases, str) else list(phases),
        batch=_words(batch),
        heads=_words(heads),
        head_dim=_words(head_dim),
        dtype=_dtypes(dtype),
        device=device,
        processes=processes,
        threads=threads,
        seconds=seconds,
        baseline=name_of(baseline),
        compiled=compiled,
        options={name: str(value) for name, value in (options or {}).items()},
        preset=preset,
    )
    if out is not None:
        return _measured(order, ResultStore(Path(out)))
    with tempfile.TemporaryDirectory(prefix="cab-bench-") as folder:
        # Not the folder itself: a store keeps files beside its own.
        return _measured(order, ResultStore(Path(folder) / "rows"))


def _measured(order: BenchOrder, store: ResultStore) -> pd.DataFrame:
    """Run what the store lacks, and read it.

    Raises:
        ContractError: an attention or the baseline breaks the contract.
        CabError: a process ended without a result.
    """
    from cab.scoring.curves import curves_of
    from cab.scoring.results import load_results
    from runners.executors.selection import executor_of
    from runners.gate import examine_candidates
    from runners.session import missing_cells, run_cells

    store.prepare()
    ordered = order.plan()
    cells = ordered.bench.cells
    todo = missing_cells(cells, store)
    rejected = examine_candidates([*ordered.bench.beside, *todo]) if todo else []
    if rejected:
        raise ContractError(rejected[0].lines()[0])
    executor = executor_of("local", {"timeout": ordered.patience})
    os.environ[_INSIDE] = "1"  # for the processes that are started now
    try:
        run_cells(todo, store, executor, lambda event: None)
    finally:
        del os.environ[_INSIDE]
    rows = load_results(store, cells={cell.key for cell in cells}).rows
    failed = rows[rows["status"].isin(("error", "invalid"))]
    if len(failed) and not (rows["status"] == "ok").any():
        raise CabError(f"nothing was measured: {failed['message'].iloc[0]}")
    return wide_frame(curves_of(rows))


def _require_outside() -> None:
    """A script that calls this while it is imported would start itself again in every process.

    Raises:
        UsageError: it does.
    """
    if os.environ.get(_INSIDE):
        raise UsageError(
            "cab.bench was called while a process that it had started imported this file; put the "
            'call below: if __name__ == "__main__":'
        )


def _words(sizes: Sizes) -> str:
    if isinstance(sizes, str | int):
        return str(sizes)
    return ",".join(str(size) for size in sizes)


def _dtypes(dtype: object) -> str:
    """Of a name, of torch's own object, or of several of them."""
    several = dtype if isinstance(dtype, list | tuple) else [dtype]
    return ",".join(str(one).removeprefix("torch.") for one in several)
