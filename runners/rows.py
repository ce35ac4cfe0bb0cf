"""Result rows of a cell: what all rows of one cell share."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cab.cell import Cell
from cab.schema import Row, Status
from runners.environment import device_name, environment, git_commit


def identity(cell: Cell) -> Row:
    """A row with the fields that the cell determines."""
    return Row(
        cell=cell.key,
        kind=cell.kind,
        attention=cell.attention,
        grade=cell.grade,
        attention_options=json.dumps(dict(cell.options), sort_keys=True),
        attention_hash=cell.attention_hash,
        pattern=cell.pattern,
        task=cell.task,
        task_hash=cell.task_hash,
        data_hash=cell.data_hash,
        scale=cell.scale,
        seed=cell.seed,
        device=cell.device,
        suite_version=cell.suite_version,
    )


def row_template(cell: Cell) -> Row:
    """A row with the fields that the cell and this process determine."""
    import torch

    return replace(
        identity(cell),
        device_name=device_name(cell.device),
        threads=torch.get_num_threads(),
        environment=environment(cell.device),
        backend="torch",
        git_commit=git_commit(),
    )


def measured(template: Row, **fields: Any) -> Row:
    """A copy of the template with one measured number."""
    return replace(template, recorded_at=datetime.now(UTC), **fields)


def ended(template: Row, status: Status, message: str, **fields: Any) -> Row:
    """A copy of the template that records an end without a number."""
    return measured(template, status=status.value, message=message, **fields)
