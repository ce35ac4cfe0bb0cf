"""The result table: one row per measured number.

``COLUMNS`` documents every column; ``SCHEMA`` is the Arrow schema that writers use. Readers accept
files of older schema versions: columns that a file lacks are null.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1


class Status(StrEnum):
    """How a cell ended."""

    OK = "ok"
    OOM = "oom"
    """Out of memory, of the device or of the host."""
    UNSUPPORTED = "unsupported"
    """The attention cannot do this (pattern, dtype, device, parameter budget)."""
    DIVERGED = "diverged"
    """The training loss or an output became infinite or not a number."""
    TIMEOUT = "timeout"
    ERROR = "error"
    """Anything else; the message says what. Such a cell is tried again by the next run."""


FINISHED = frozenset({Status.OK, Status.OOM, Status.UNSUPPORTED, Status.DIVERGED, Status.TIMEOUT})
"""Ends that a later run does not try again."""


@dataclass(frozen=True)
class Column:
    """Name, Arrow type and meaning of one column."""

    name: str
    type: pa.DataType
    help: str


COLUMNS: tuple[Column, ...] = (
    Column("schema_version", pa.int16(), "version of this table's layout"),
    Column("run_id", pa.string(), "one invocation of the suite"),
    Column("cell", pa.string(), "content hash of everything that determines the number"),
    Column("recorded_at", pa.timestamp("us", tz="UTC"), "when the row was recorded"),
    Column("kind", pa.string(), "quality, efficiency or published"),
    Column("status", pa.string(), "ok, oom, unsupported, diverged, timeout or error"),
    Column("message", pa.string(), "what happened, where status is not ok"),
    Column("attention", pa.string(), "id of the attention"),
    Column("grade", pa.string(), "faithful, extension or adapted, for this pattern"),
    Column("attention_options", pa.string(), "JSON object of the options in force"),
    Column("attention_hash", pa.string(), "hash of the attention's code"),
    Column("pattern", pa.string(), "attention pattern of the slots under test"),
    Column("task", pa.string(), "id of the task; empty in efficiency rows"),
    Column("task_hash", pa.string(), "hash of the task's code"),
    Column("dataset", pa.string(), "name of the data"),
    Column("data_hash", pa.string(), "hash of the data"),
    Column("backbone", pa.string(), "model that holds the slots"),
    Column("scale", pa.string(), "tiny, small, base or paper"),
    Column("seed", pa.int32(), "training seed (quality) or number of the process (efficiency)"),
    Column(
        "phase",
        pa.string(),
        "eval, reference, analysis or train (quality); forward, forward_backward or decode",
    ),
    Column("length_q", pa.int32(), "queries, in tokens"),
    Column("length_k", pa.int32(), "keys, in tokens"),
    Column("batch", pa.int32(), "sequences per call or training batch"),
    Column("heads", pa.int32(), "attention heads"),
    Column("head_dim", pa.int32(), "width of a head"),
    Column("dtype", pa.string(), "floating-point type of the attention's inputs"),
    Column(
        "metric",
        pa.string(),
        "name of the number; empty in the row that records a failed cell's end",
    ),
    Column("value", pa.float64(), "the number"),
    Column("unit", pa.string(), "its unit"),
    Column("higher_is_better", pa.bool_(), "its direction"),
    Column("samples", pa.list_(pa.float64()), "raw measurements behind the value, in its unit"),
    Column("parameters_total", pa.int64(), "parameters of the model or module"),
    Column("parameters_attention", pa.int64(), "parameters that the candidate adds"),
    Column("train_steps", pa.int32(), "optimisation steps of the tested checkpoint"),
    Column("device", pa.string(), "cpu or cuda"),
    Column("device_name", pa.string(), "model name of the processor"),
    Column("threads", pa.int16(), "intra-op threads of torch"),
    Column("environment", pa.string(), "JSON object: versions, processor, driver, clocks"),
    Column("backend", pa.string(), "torch, triton or upstream"),
    Column("label", pa.string(), "self-reported, verified, reference or published"),
    Column("suite_version", pa.string(), "version of this package"),
    Column("git_commit", pa.string(), "commit of the working tree, with -dirty where it was"),
    Column("source", pa.string(), "where a published number was read"),
)

SCHEMA = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])


@dataclass(kw_only=True)
class Row:
    """One row; a field left out is null. See `COLUMNS` for the meanings."""

    schema_version: int = SCHEMA_VERSION
    run_id: str | None = None
    cell: str
    recorded_at: datetime | None = None
    kind: str
    status: str = Status.OK.value
    message: str | None = None
    attention: str
    grade: str | None = None
    attention_options: str | None = None
    attention_hash: str | None = None
    pattern: str
    task: str | None = None
    task_hash: str | None = None
    dataset: str | None = None
    data_hash: str | None = None
    backbone: str | None = None
    scale: str | None = None
    seed: int | None = None
    phase: str | None = None
    length_q: int | None = None
    length_k: int | None = None
    batch: int | None = None
    heads: int | None = None
    head_dim: int | None = None
    dtype: str | None = None
    metric: str = ""
    value: float | None = None
    unit: str | None = None
    higher_is_better: bool | None = None
    samples: list[float] = field(default_factory=list)
    parameters_total: int | None = None
    parameters_attention: int | None = None
    train_steps: int | None = None
    device: str | None = None
    device_name: str | None = None
    threads: int | None = None
    environment: str | None = None
    backend: str | None = None
    label: str | None = None
    suite_version: str | None = None
    git_commit: str | None = None
    source: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Column name to value."""
        return asdict(self)


def table_of(rows: list[Row]) -> pa.Table:
    """Rows as an Arrow table of the current schema."""
    return pa.Table.from_pylist([row.as_dict() for row in rows], schema=SCHEMA)
