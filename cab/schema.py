"""The result table: one row per measured number.

`Row` declares every column with its type and meaning; ``SCHEMA``, the Arrow schema that writers
use, follows from it. Readers accept files of older schema versions: columns that a file lacks are
null.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pyarrow as pa

SCHEMA_VERSION = 2


class Status(StrEnum):
    """How a cell ended."""

    OK = "ok"
    OOM = "oom"
    """Out of memory, of the device or of the host."""
    UNSUPPORTED = "unsupported"
    """The attention cannot do this (pattern, dtype, device, parameter budget)."""
    INVALID = "invalid"
    """The attention breaks the contract (reads later tokens, mixes rows); nothing is ranked."""
    DIVERGED = "diverged"
    """The training loss or an output became infinite or not a number."""
    TIMEOUT = "timeout"
    ERROR = "error"
    """Anything else; the message says what."""


TRIED_AGAIN = frozenset({Status.ERROR})
"""Ends that the next run tries again without being asked: those whose cause may not be the
candidate."""
DECISIVE = frozenset({Status.OK, Status.INVALID})
"""Ends of a cell that no later run without one replaces."""


def run_order(statuses: Iterable[str], last: float) -> tuple[bool, float]:
    """Of the runs of one cell the greatest counts: the newest that has a number or found the
    candidate invalid, else the newest.

    Args:
        statuses: of its rows.
        last: time of its last row.
    """
    return bool(DECISIVE & set(statuses)), last


Text = Annotated[str, pa.string()]
Short = Annotated[int, pa.int16()]
Whole = Annotated[int, pa.int32()]
Long = Annotated[int, pa.int64()]
Real = Annotated[float, pa.float64()]
Flag = Annotated[bool, pa.bool_()]
Moment = Annotated[datetime, pa.timestamp("us", tz="UTC")]
Numbers = Annotated[list[float], pa.list_(pa.float64())]


@dataclass(kw_only=True)
class Row:
    """One row. A field is a column: its type is that of the files, and one left out is null."""

    schema_version: Short = SCHEMA_VERSION
    """Version of this table's layout"""
    run_id: Text | None = None
    """One invocation of the suite"""
    cell: Text
    """Content hash of everything that determines the number"""
    recorded_at: Moment | None = None
    """When the row was recorded"""
    kind: Text
    """quality, efficiency or published"""
    status: Text = Status.OK.value
    """ok, oom, unsupported, invalid, diverged, timeout or error"""
    message: Text | None = None
    """What happened, where status is not ok"""
    attention: Text
    """Id of the attention"""
    grade: Text | None = None
    """faithful, extension or adapted, for this pattern"""
    attention_options: Text | None = None
    """JSON object of the options in force"""
    attention_hash: Text | None = None
    """Hash of the attention's code"""
    pattern: Text
    """Attention pattern of the slots under test"""
    task: Text | None = None
    """Id of the task; empty in efficiency rows"""
    task_hash: Text | None = None
    """Hash of the task's code"""
    dataset: Text | None = None
    """Name of the data"""
    data_hash: Text | None = None
    """Hash of the data"""
    backbone: Text | None = None
    """Model that holds the slots"""
    scale: Text | None = None
    """tiny, small, base or paper"""
    seed: Whole | None = None
    """Training seed (quality) or number of the process (efficiency)"""
    phase: Text | None = None
    """eval, reference, analysis, train or witness (quality); forward, forward_backward or decode"""
    length_q: Whole | None = None
    """Queries, in tokens"""
    length_k: Whole | None = None
    """Keys, in tokens"""
    batch: Whole | None = None
    """Sequences per call or training batch"""
    heads: Whole | None = None
    """Attention heads"""
    head_dim: Whole | None = None
    """Width of a head"""
    dtype: Text | None = None
    """Floating-point type of the attention's inputs"""
    metric: Text = ""
    """Name of the number; empty in the row that records a failed cell's end"""
    value: Real | None = None
    """The number"""
    unit: Text | None = None
    """Its unit"""
    higher_is_better: Flag | None = None
    """Its direction"""
    samples: Numbers = field(default_factory=list)
    """Raw measurements behind the value, in its unit"""
    parameters_total: Long | None = None
    """Parameters of the model or module"""
    parameters_attention: Long | None = None
    """Parameters that the candidate adds"""
    train_steps: Whole | None = None
    """Optimisation steps of the tested checkpoint"""
    device: Text | None = None
    """cpu or cuda"""
    device_name: Text | None = None
    """Model name of the processor"""
    threads: Short | None = None
    """Intra-op threads of torch"""
    environment: Text | None = None
    """JSON object: versions, processor, driver, clocks"""
    backend: Text | None = None
    """torch, triton or upstream"""
    label: Text | None = None
    """self-reported, verified, reference or published"""
    suite_version: Text | None = None
    """Version of this package"""
    git_commit: Text | None = None
    """Commit of the working tree, with -dirty where it was"""
    source: Text | None = None
    """Where a published or carried-over number comes from"""
    witness: Text | None = None
    """JSON object: what recognises a training run, in one row of it"""

    def as_dict(self) -> dict[str, Any]:
        """Column name to value."""
        return asdict(self)


def _arrow(hint: Any) -> pa.DataType:
    """The Arrow type of a field's annotation, whether it may be null or not."""
    return next(
        part.__metadata__[0] for part in (hint, *get_args(hint)) if get_origin(part) is Annotated
    )


SCHEMA = pa.schema(
    [(name, _arrow(hint)) for name, hint in get_type_hints(Row, include_extras=True).items()]
)


def table_of(rows: list[Row]) -> pa.Table:
    """Rows as an Arrow table of the current schema."""
    return pa.Table.from_pylist([row.as_dict() for row in rows], schema=SCHEMA)
