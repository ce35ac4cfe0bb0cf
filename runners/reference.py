"""Filling the reference results: ``python -m runners.reference [--time-budget 2h]``.

Measures what results/reference lacks, most valuable first: the controls of every task, then the
cost of the entries asked for, then their scores, seed by seed. It may be interrupted at any time
and goes on where it was; at the end the folder is compacted. Rows come from a clean commit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from cab.candidate import Candidate, choose_candidates
from cab.cell import Cell
from cab.chosen_task import ChosenTask, choose_tasks
from cab.controls import COSTS, NO_ATTENTION, REFERENCE_CONTROLS
from cab.durations import parse_time
from cab.errors import CabError, UsageError
from cab.info import Scale
from cab.own_code import require_own_packages
from cab.patterns import Pattern
from cab.regularisers import STEPS, parse_steps
from cab.result_sources import reference_store
from cab.scoring.boards import discriminating_pairs
from cab.store import ResultStore
from cab.terminal import Terminal
from runners.cells import CellFactory
from runners.compaction import Run, compact
from runners.display import RunDisplay
from runners.environment import available_cores, device_name, git_commit
from runners.executors.local import LocalExecutor
from runners.session import missing_cells, run_cells

console = Terminal()

MOST_BYTES = 12 * 2**20
"""Of the whole folder; it travels with the package"""
SEEDS = 3
SAMPLE_BYTES = 200 * 2**10
"""Of a task on a pattern: samples of one entry are like those of the next, and there are many"""
_BATCH = 8
"""Cells for each worker that are handed over at once; at the end of a batch the others wait for its
slowest cell"""
_NOMINAL = {"quality": 35.0, "efficiency": 45.0}
"""Seconds of a cell, until one of its kind has ended"""


@dataclass(frozen=True)
class Wish:
    """What the reference results should hold."""

    attentions: Sequence[str]
    patterns: Sequence[Pattern]
    tasks: Sequence[str]
    """Empty: every task that is no probe"""
    seeds: int
    scale: Scale = Scale.SMALL
    device: str = "cpu"
    costs: bool = True
    steps: float = 1.0
    """Multiple of the recipes' steps; all but 1 is measured of scores alone"""


def wanted_cells(wish: Wish, store: ResultStore, make: CellFactory) -> list[Cell]:
    """All cells of a wish, most valuable first.

    Tasks that are known to measure nothing on a pattern get their controls alone, which is how it
    is known.

    Raises:
        UsageError and its kinds: an entry or task that does not exist.
    """
    known = discriminating_pairs(store, wish.scale.value, wish.device)
    tasks = choose_tasks(wish.tasks, wish.scale, hashes=make.hashes)
    controls, _ = choose_candidates(REFERENCE_CONTROLS, hashes=make.hashes)
    names = [name for name in wish.attentions if name not in REFERENCE_CONTROLS]
    asked, _ = choose_candidates(names, hashes=make.hashes)
    if wish.steps != 1.0:
        training = {STEPS: wish.steps}
        controls, asked = (
            [replace(candidate, training=training) for candidate in group]
            for group in (controls, asked)
        )
    cells: list[Cell] = []
    for seed in range(wish.seeds):
        cells += _quality(wish, make, controls, tasks, seed, lambda task, pattern: True)
    if wish.costs and wish.steps == 1.0:
        for seed in range(wish.seeds):
            cells += _costs(wish, make, [*controls, *asked], seed)
    for seed in range(wish.seeds):
        cells += _quality(
            wish, make, asked, tasks, seed,
            lambda task, pattern: known.get((task, pattern), True),
        )  # fmt: skip
    make.hashes.save()
    return list({cell.key: cell for cell in cells}.values())


def _quality(
    wish: Wish,
    make: CellFactory,
    candidates: Sequence[Candidate],
    tasks: Sequence[ChosenTask],
    seed: int,
    counts: Callable[[str, str], bool],
) -> Iterator[Cell]:
    for task in tasks:
        for pattern in wish.patterns:
            if not task.serves(pattern) or wish.scale not in task.info.scales:
                continue
            if not counts(task.id, pattern.value):
                continue
            for candidate in candidates:
                if candidate.grade(pattern) is not None:
                    yield make.quality(candidate, pattern, task, wish.scale, seed)


def _costs(
    wish: Wish, make: CellFactory, candidates: Sequence[Candidate], seed: int
) -> Iterator[Cell]:
    for pattern in wish.patterns:
        for candidate in candidates:
            if candidate.grade(pattern) is not None and candidate.id != NO_ATTENTION:
                yield make.efficiency(candidate, pattern, wish.scale, seed, COSTS)


def fill(cells: Sequence[Cell], store: ResultStore, budget: float) -> int:
    """Measure what is missing, in order, until the time is up; gives how many cells ended."""
    todo = missing_cells(list(cells), store)
    executor = LocalExecutor()
    width = executor.width([cell for cell in todo if cell.kind == "quality"])
    deadline = time.monotonic() + budget
    seconds: dict[str, list[float]] = {}
    count = 0
    with RunDisplay(console, todo, width) as display:
        while todo:
            expected = _expected(todo[0].kind, seconds)
            rounds = min(_BATCH, int((deadline - time.monotonic()) / expected))
            if rounds < 1:
                break
            _, of_one_kind = next(groupby(todo[: rounds * width], key=lambda cell: cell.kind))
            batch = list(of_one_kind)
            result = run_cells(batch, store, executor, display.handle)
            for end in result.ended.values():
                seconds.setdefault(end.cell.kind, []).append(end.seconds)
            count += len(batch)
            todo = todo[len(batch) :]
    return count


def sampled(runs: Sequence[Run], store: ResultStore) -> set[str]:
    """Cells whose samples travel with the package: of first seeds, controls before others, up to
    `SAMPLE_BYTES` for each task and pattern.
    """
    order = sorted(
        (run[0] for run in runs if run[0]["seed"] == 0),
        key=lambda row: (row["attention"] not in REFERENCE_CONTROLS, str(row["attention"])),
    )
    room: dict[tuple[object, object], int] = {}
    kept = set()
    for row in order:
        cell, pair = str(row["cell"]), (row["task"], row["pattern"])
        left = room.get(pair, SAMPLE_BYTES) - sum(
            path.stat().st_size for path in store.made.files([cell])
        )
        if left >= 0:
            room[pair] = left
            kept.add(cell)
    return kept


def _expected(kind: str, seconds: dict[str, list[float]]) -> float:
    known = seconds.get(kind)
    return sum(known) / len(known) if known else _NOMINAL[kind]


def main() -> int:
    """The command; exit code 0, 2 for bad arguments, 130 where it was interrupted."""
    try:
        require_own_packages()
        return _main(_arguments())
    except CabError as error:
        print(f"reference: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("reference: interrupted; what was finished is kept", file=sys.stderr)
        return 130


def _main(asked: argparse.Namespace) -> int:
    commit = git_commit() or ""
    if not commit or commit.endswith("-dirty"):
        raise UsageError("reference rows come from a clean commit: commit or stash, then run again")
    store = reference_store()
    store.prepare()
    wish = Wish(
        attentions=asked.attn,
        patterns=[Pattern.parse(name) for name in asked.pattern] or list(Pattern),
        tasks=asked.task,
        seeds=asked.seeds,
        costs=not asked.no_costs,
        steps=parse_steps(asked.steps),
    )
    make = CellFactory("cpu", f"{device_name('cpu')}, {available_cores()} cores")
    cells = wanted_cells(wish, store, make)
    missing = missing_cells(cells, store)
    console.print(f"{len(cells)} cells wanted, {len(missing)} missing (commit {commit[:8]})")
    if asked.dry_run:
        for cell in missing:
            console.print(f"  {cell.title}")
        return 0
    try:
        count = fill(cells, store, parse_time(asked.time_budget))
    finally:
        written = compact(store, MOST_BYTES, lambda runs: sampled(runs, store))
    size = sum(path.stat().st_size for path in written) / 2**20
    left = len(missing_cells(cells, store))
    console.print(f"{count} cells ended, {left} are still missing; {size:.2f} MiB")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runners.reference", description=__doc__)
    parser.add_argument("--attn", action="append", default=[], help="entry, beside the controls")
    parser.add_argument("--pattern", action="append", default=[], help="default: all")
    parser.add_argument("--task", action="append", default=[], help="default: all but probes")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", default="1x", help="multiple of the recipes' steps: 4x, 0.5x")
    parser.add_argument("--time-budget", default="12h", help="90m, 2h, 1h30m")
    parser.add_argument("--no-costs", action="store_true", help="scores alone")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
