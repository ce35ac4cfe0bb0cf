"""``cab results carry`` and ``cab results audit``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from cab.cli.console import bold, console, styled, table, words
from cab.cli.execution import chosen_executor
from cab.cli.options import parse_device
from cab.errors import UsageError
from cab.result_sources import store_at
from cab.store import ResultStore

_SHOWN = 12
"""Cells that are named for one reason"""


def carry_command(
    out: Path, device: str, workers: int | None, timeout: float, dry_run: bool
) -> int:
    """Replay what can be carried over; exit code 1 where a cell must be measured."""
    from runners.carry import carry, plan_carrying
    from runners.display import RunDisplay
    from runners.protocol import REPLAY

    flags = {"workers": workers, "timeout": timeout}
    executor = chosen_executor("local", [f"action={REPLAY}"], flags)
    store, device = _store(out), parse_device(device)
    plan = plan_carrying(store, device)
    console.print(
        f"{plan.current} cells have today's key, {len(plan.replays)} can be replayed, "
        f"{len(plan.silent)} have no witness ({out}, {device})",
        soft_wrap=True,
    )
    for reason, cells in plan.gone.items():
        _list(f"nothing to carry to: {reason}", [cell.title for cell in cells])
    _list("must be measured: stored without a witness", [cell.title for cell in plan.silent])
    if dry_run or not plan.replays:
        return 1 if plan.silent else 0
    store.prepare()
    began = time.monotonic()
    replayed = [today for _, today in plan.replays]
    with RunDisplay(console, replayed, executor.width(replayed)) as display:
        carried = carry(plan.replays, store, executor, display.handle)
    seconds = time.monotonic() - began
    console.print(f"{len(carried.cells)} cells carried over in {seconds:.0f} s", soft_wrap=True)
    for reason, titles in carried.to_measure.items():
        _list(f"must be measured: {reason}", titles)
    return 1 if carried.to_measure or plan.silent else 0


def audit_command(
    out: Path, device: str, workers: int | None, rerun: int, seed: int, timeout: float
) -> int:
    """Measure cells again; exit code 1 where a score differs."""
    from runners.audit import DIFFERS, audit, drawn_cells
    from runners.display import RunDisplay
    from runners.stored import quality_cells

    executor = chosen_executor("local", [], {"workers": workers, "timeout": timeout})
    if rerun < 1:
        raise UsageError(f"--rerun must be at least 1, not {rerun}")
    store, device = _store(out), parse_device(device)
    chosen = drawn_cells(store, device, rerun, seed)
    cells = [today for _, today in chosen]
    with RunDisplay(console, cells, executor.width(cells)) as display:
        found = audit(chosen, quality_cells(store), executor, display.handle)
    shown = table("cell", "scores", "equal", "within its seeds", "differs",
                  right=("scores", "equal", "within its seeds", "differs"))  # fmt: skip
    for cell, _ in chosen:
        verdicts = [f.verdict for f in found.findings if f.cell is cell]
        counts = [verdicts.count(v) for v in ("equal", "within its seeds", DIFFERS)]
        shown.add_row(cell.title, str(len(verdicts)), *map(str, counts))
    console.print(shown)
    for finding in found.findings:
        if finding.verdict == DIFFERS:
            console.print(
                f"{finding.cell.title}: {finding.metric} was {finding.stored!r}, "
                f"now {finding.again!r}",
                soft_wrap=True,
            )
    for end in found.failed:
        console.print(f"{end.cell.title}: {end.status} {end.message}")
    console.print("nothing differs" if found.passed else styled("red", "stored scores differ"))
    return 0 if found.passed else 1


def _store(out: Path) -> ResultStore:
    if not out.is_dir():
        raise UsageError(f"{out} is not a results folder; give one with --out")
    return store_at(out)


def _list(title: str, names: Sequence[str]) -> None:
    if not names:
        return
    console.print(words(bold(title), f" ({len(names)})"), soft_wrap=True)
    for name in names[:_SHOWN]:
        console.print(f"  {name}", soft_wrap=True)
    if len(names) > _SHOWN:
        console.print(f"  ... and {len(names) - _SHOWN} more")
