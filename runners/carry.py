"""Carrying results over to the keys of today's code, where a replay shows the same behaviour."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cab.cell import Cell
from cab.errors import CabError
from cab.schema import Row, Status
from cab.store import ResultStore
from runners.executors.events import Ended, Event, Executor
from runners.stored import StoredCell, Today, quality_cells
from runners.witness.record import Witness, differences


@dataclass
class Carrying:
    """What is to be replayed, and what need not or cannot."""

    replays: list[tuple[StoredCell, Cell]] = field(default_factory=list)
    current: int = 0
    """Cells that have today's key already"""
    gone: dict[str, list[StoredCell]] = field(default_factory=dict)
    """By the reason why there is nothing to carry them to"""
    silent: list[StoredCell] = field(default_factory=list)
    """Cells of an identity that exists, stored without a witness"""


@dataclass
class Carried:
    """How it went."""

    cells: list[StoredCell] = field(default_factory=list)
    to_measure: dict[str, list[str]] = field(default_factory=dict)
    """Cells that must be measured, by the reason"""


def plan_carrying(store: ResultStore, device: str) -> Carrying:
    """Look up every stored quality cell of a device under today's code.

    Raises:
        StoreError: the store cannot be read.
    """
    today_of = Today(device)
    found = Carrying()
    stored = [cell for cell in quality_cells(store) if cell.first.device == device]
    keys = {cell.key for cell in stored}
    newest: dict[tuple[object, ...], StoredCell] = {cell.identity: cell for cell in stored}
    for cell in newest.values():
        try:
            today = today_of.cell(cell)
        except CabError as error:
            found.gone.setdefault(str(error), []).append(cell)
            continue
        if today.key in keys:
            found.current += 1
        elif cell.witness is None:
            found.silent.append(cell)
        else:
            found.replays.append((cell, today))
    today_of.save()
    return found


def carry(
    replays: Sequence[tuple[StoredCell, Cell]],
    store: ResultStore,
    executor: Executor,
    on_event: Callable[[Event], None],
) -> Carried:
    """Replay witnesses and store the rows of those that are equal under today's keys.

    Args:
        replays: stored cells with today's.
        store: gets the rows.
        executor: one that replays (``action="replay"``).
        on_event: hears of every replay.
    """
    carried = Carried()
    stored = {today.key: cell for cell, today in replays}
    cells = [today for _, today in replays]
    run_id = uuid.uuid4().hex[:12]

    def handle(event: Event) -> None:
        if isinstance(event, Ended):
            old = stored[event.cell.key]
            reasons = list(_objections(old, event))
            if reasons:
                carried.to_measure.setdefault("; ".join(reasons), []).append(old.title)
            else:
                _store(old, event, store, run_id)
                carried.cells.append(old)
        on_event(event)

    executor.run(cells, handle)
    return carried


def _objections(old: StoredCell, end: Ended) -> Iterator[str]:
    if old.first.data_hash != end.cell.data_hash:
        yield "the data changed"
        return
    replayed = next((row.witness for row in end.rows if row.witness), None)
    if end.status is not Status.OK or replayed is None:
        yield f"the replay ended as {end.status}: {end.message}"
        return
    try:
        yield from differences(Witness.from_json(old.witness or ""), Witness.from_json(replayed))
    except ValueError:
        yield "its witness cannot be read"


def _store(old: StoredCell, end: Ended, store: ResultStore, run_id: str) -> None:
    """The rows under today's key. They say whose numbers they are: commit and machine stay those
    of the measurement; the witness is today's.
    """
    cell = end.cell
    witness = next(row.witness for row in end.rows if row.witness)
    now = datetime.now(UTC)
    when = old.first.recorded_at
    words = f"carried over from cell {old.key}, measured {when:%Y-%m-%d} at commit " if when else ""
    source = f"{words}{old.first.git_commit or 'unknown'}"

    def renewed(row: Row) -> Row:
        return replace(
            row,
            cell=cell.key,
            run_id=run_id,
            recorded_at=now,
            attention_hash=cell.attention_hash,
            task_hash=cell.task_hash,
            data_hash=cell.data_hash,
            source=source,
            witness=witness if row.witness else None,
        )

    artifacts = store.artifacts(old.key)
    if artifacts:
        store.attach(cell.key, artifacts)
    store.append([renewed(row) for row in old.rows])
