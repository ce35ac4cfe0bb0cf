"""The GPU benchmark's numbers, and as rows of the result table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.lla.gpu_entries import Entry
from benchmarks.timing import spread
from cab import Pattern
from cab.cell import Cell
from cab.code_hash import attention_hash, code_hash
from cab.registries import ATTENTIONS
from cab.schema import Row, Status
from cab.store import ResultStore
from runners.environment import device_name
from runners.rows import ended, measured, row_template


@dataclass
class Result:
    """One entry at one length, head dim and phase."""

    entry: Entry
    phase: str
    heads: int
    dim: int
    length: int
    dtype: str
    status: Status = Status.OK
    message: str = ""
    seconds: list[float] = field(default_factory=list)
    over_sdpa: list[float] = field(default_factory=list)
    """Time over that of fused softmax attention, round for round."""
    over_triton: list[float] = field(default_factory=list)
    """Time over that of Local Linear Attention in the kernels, round for round."""
    peak_bytes: float | None = None
    iterations: float | None = None
    residual: float | None = None
    implied_over_sdpa: float | None = None
    """What the FLOPs alone would make of it."""
    utilisation: float | None = None
    """Useful FLOP/s over the measured rate of a bfloat16 matrix product."""
    bandwidth: float | None = None
    """Bytes of the cache over the time of a decode step, B/s."""


def write(results: Sequence[Result], target: Path, device: str, source: str) -> None:
    """Store results in place of the file's rows of their head dims; it keeps those of others."""
    rows = [row for result in results for row in rows_of(result, device, source)]
    measured_dims = {result.dim for result in results}
    if target.exists():
        stored = pq.read_table(target).to_pylist()
        rows += [Row(**old) for old in stored if old["head_dim"] not in measured_dims]
    store = ResultStore(target.parent)
    store.prepare()
    store.append(rows).rename(target)


def rows_of(result: Result, device: str, source: str) -> Iterator[Row]:
    """One row per number; a result without any gives one row that says why."""
    template = replace(
        row_template(_cell(result, device)),
        phase=result.phase, batch=1, heads=result.heads, head_dim=result.dim, dtype=result.dtype,
        length_q=1 if result.phase == "decode" else result.length, length_k=result.length,
        backend=result.entry.backend, label="reference", source=source,
    )  # fmt: skip
    if result.status is not Status.OK:
        yield ended(replace(template, metric="latency"), result.status, result.message)
        return
    numbers: tuple[tuple[str, list[float], str, bool], ...] = (
        ("latency", result.seconds, "s", False),
        ("latency_ratio", result.over_sdpa, "1", False),
        ("implied_latency_ratio", _one(result.implied_over_sdpa), "1", False),
        ("peak_memory", _one(result.peak_bytes), "B", False),
        ("flop_utilisation", _one(result.utilisation), "1", True),
        ("cache_bandwidth", _one(result.bandwidth), "B/s", True),
        ("solver_iterations", _one(result.iterations), "1", False),
        ("solver_residual", _one(result.residual), "1", False),
    )
    for metric, samples, unit, higher_is_better in numbers:
        if samples:
            yield measured(
                template, metric=metric, value=spread(samples).median, samples=samples, unit=unit,
                higher_is_better=higher_is_better,
            )  # fmt: skip


def _one(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _cell(result: Result, device: str) -> Cell:
    entry = ATTENTIONS.resolve(result.entry.attention)
    own = {
        "phase": result.phase, "dim": result.dim, "length": result.length, "dtype": result.dtype,
        "runner": code_hash("benchmarks.lla.gpu"),
    }  # fmt: skip
    return Cell(
        kind="efficiency",
        attention=entry.id,
        target=entry.target,
        options=entry.info.defaults() | result.entry.options,
        grade=str(entry.info.grade(Pattern.CAUSAL_SELF)),
        attention_hash=attention_hash(entry.target, "efficiency"),
        softmax_hash=attention_hash(ATTENTIONS.resolve("softmax").target, "efficiency"),
        runner_hash=json.dumps(own, sort_keys=True),
        pattern=Pattern.CAUSAL_SELF.value,
        scale="paper",
        seed=0,
        device=device,
        machine=device_name(device),
        measures=("latency", "memory"),
    )
