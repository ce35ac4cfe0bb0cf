"""``cab run``: plan, measure what the store lacks, and set the result beside the controls."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from cab.cell import Cell
from cab.cli.console import console, table
from cab.cli.options import parse_device, parse_options
from cab.cli.progress import RunDisplay
from cab.errors import UsageError
from cab.schema import Status
from cab.store import ResultStore

if TYPE_CHECKING:
    from runners.executors.events import Executor


def run_command(
    *,
    attentions: list[str],
    patterns: list[str],
    tasks: list[str],
    scale: str,
    seeds: int,
    device: str,
    measures: list[str],
    options: list[str],
    preset: str,
    data_dir: Path | None,
    out: Path,
    workers: int | None,
    threads: int,
    timeout: float,
    executor: str,
    replicas: int,
    dry_run: bool,
) -> int:
    """Run a request; the exit code is 0, 1 where a cell of a candidate failed, 130 after Ctrl-C."""
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder")
    if timeout <= 0 or threads < 1 or replicas < 1 or (workers is not None and workers < 1):
        raise UsageError("--timeout, --threads, --workers and --replicas must be positive")
    store = ResultStore(out)
    store.files()
    if not dry_run:
        store.prepare()
    given = parse_options(options)

    from runners.environment import available_cores, device_name
    from runners.executors.selection import executor_class
    from runners.planner import Request, make_plan
    from runners.session import missing_cells

    device = parse_device(device)
    chosen = executor_class(executor)(workers, threads, timeout, replicas)
    request = Request(
        attentions=attentions,
        patterns=patterns,
        tasks=tasks,
        scale=scale,
        seeds=seeds,
        device=device,
        measures=measures,
        options=given,
        preset=preset,
        data_dir=data_dir,
    )
    plan = make_plan(request, machine=f"{device_name(device)}, {available_cores()} cores")
    todo = missing_cells(plan.cells, store)
    for note in plan.notes:
        console.print(f"[dim]{escape(note)}[/dim]")
    console.print(
        f"{len(plan.cells)} cells, {len(plan.cells) - len(todo)} in {escape(str(out))} already, "
        f"{len(todo)} to run ({scale}, {device})",
        soft_wrap=True,
    )
    if dry_run:
        _print_cells(plan.cells, {cell.key for cell in todo})
        return 0
    interrupted = execute(todo, store, chosen) if todo else None
    if interrupted is not None:
        done = len(todo) - len(missing_cells(todo, store))
        console.print(
            f"\ninterrupted: {done} of {len(todo)} cells are stored in {escape(str(out))}; "
            "run the same command again to go on",
            soft_wrap=True,
        )
        return 130
    _print_results(plan.candidates, [str(p) for p in plan.patterns], scale, device, store)
    return _exit_code(plan.cells, store)


def execute(todo: list[Cell], store: ResultStore, executor: Executor) -> KeyboardInterrupt | None:
    """Run cells with a display of how far they are; gives the interrupt where there was one."""
    from runners.executors.events import Ended, Event, Progressed, Started
    from runners.session import run_cells

    # A scheduler's polite end is handled as the user's own.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with RunDisplay(console, todo, executor.width(todo)) as display:

        def show(event: Event) -> None:
            if isinstance(event, Started):
                display.started(event.cell)
            elif isinstance(event, Progressed):
                display.progressed(event.cell, event.done, event.loss)
            elif isinstance(event, Ended):
                display.ended(event.cell, event.status, event.message, event.seconds)

        try:
            run_cells(todo, store, executor, show)
        except KeyboardInterrupt as interrupt:
            return interrupt
    return None


def _print_cells(cells: list[Cell], missing: set[str]) -> None:
    shown = table("", "kind", "attention", "pattern", "task", "seed")
    for cell in cells:
        what = cell.task if cell.kind == "quality" else ", ".join(cell.measures)
        state = "run" if cell.key in missing else "stored"
        shown.add_row(state, cell.kind, cell.attention, cell.pattern, what, str(cell.seed))
    console.print(shown)


def _print_results(
    candidates: list[str], patterns: list[str], scale: str, device: str, store: ResultStore
) -> None:
    from cab.cli.formats import print_sheet
    from cab.cli.standings import board_notes, standings_sheet
    from cab.cli.tables import board, cost_table, score_table
    from cab.scoring.results import load_results

    results = load_results(store)
    for pattern in patterns:
        present = results.select(pattern=pattern, scale=scale, device=device)
        entries = [
            entry
            for attention in [
                *(c for c in candidates if c not in ("softmax", "none")),
                "softmax",
                "none",
            ]
            for entry in sorted(present[present["attention"] == attention]["entry"].unique())
        ]
        console.print(f"\n[bold]{pattern}[/bold] ({scale}, {device})")
        scores = score_table(results, pattern, scale, device, entries)
        if scores is not None:
            console.print(scores)
            console.print(
                "[dim]mean ± half of the 95 % interval over seeds; bold: separated from "
                "all others[/dim]"
            )
            found = board(results, pattern, scale, device)
            standings = [s for s in found.standings if s.entry in entries]
            title = "\nIndex (0 = softmax)"
            print_sheet(standings_sheet(standings, found.tasks, title, notes=board_notes(found)))
        costs = cost_table(results, pattern, scale, device, [e for e in entries if e != "none"])
        if costs is not None:
            console.print(costs)
            console.print(
                "[dim]median over processes; ratio timed in turns with softmax, 95 % interval[/dim]"
            )
    console.print(
        f"\nParquet: {escape(str(store.root))} ({len(store.files())} files). "
        "Next: [bold]cab leaderboard[/bold] or [bold]cab dashboard[/bold]",
        soft_wrap=True,
    )


def _exit_code(cells: list[Cell], store: ResultStore) -> int:
    statuses = store.statuses()
    failed = [c for c in cells if Status.OK.value not in statuses.get(c.key, set())]
    return 1 if failed else 0
