"""What ``cab run`` and ``cab bench`` do with a plan: examine, execute, and say how it went."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cab.cell import Cell
from cab.cli.console import console, dim
from cab.cli.ends import complain
from cab.cli.options import parse_pairs
from cab.cli.words import shown
from cab.controls import DISTURBED
from cab.errors import UsageError
from cab.schema import TRIED_AGAIN, Status
from cab.sheets.words import count, duration
from cab.store import ResultStore

if TYPE_CHECKING:
    from runners.executors.events import Event, Executor
    from runners.gate import Rejection
    from runners.planner import Plan

_LEAST_SECONDS = 20.0
"""What measuring again may take where the costs took little"""


@dataclass(frozen=True)
class Performed:
    """How the missing cells of a plan went."""

    plan: Plan
    """Without candidates that break the contract"""
    code: int | None
    """The exit code of a command that ends here; None: there are results to show"""
    left_out: Sequence[Cell] = ()
    """Cells that the time did not suffice for"""


@dataclass(frozen=True)
class Limit:
    """How long a command may measure."""

    seconds: float
    expected: Callable[[Cell], float | None]
    """Seconds of a cell where they are known"""


def chosen_executor(name: str, words: Sequence[str], flags: Mapping[str, float | None]) -> Executor:
    """An executor with the options that the user gave.

    Args:
        name: of the entry point.
        words: ``name=value``, its own options.
        flags: options that most executors have; None where the user gave none.

    Raises:
        UsageError: there is no such executor, or it has no such option; or a flag is not positive.
    """
    from runners.executors.selection import executor_of

    for flag, value in flags.items():
        if value is not None and not value > 0:  # 0 workers are one per core to an executor
            raise UsageError(f"--{flag} must be positive, not {value:g}")
    given: dict[str, float | str] = {
        flag: value for flag, value in flags.items() if value is not None
    }
    return executor_of(name, given | parse_pairs("--executor-option", words))


def parse_retry(words: str) -> frozenset[str]:
    """Outcomes that are tried again: those that always are, and what the user names.

    Args:
        words: ``oom,timeout``, or nothing.

    Raises:
        UsageError: one is no outcome that can be tried again.
    """
    known = [status.value for status in Status if status is not Status.OK] + [DISTURBED]
    found = [word.strip().lower() for word in words.split(",")] if words else []
    for word in found:
        if word not in known:
            raise UsageError(f"--retry takes outcomes ({', '.join(known)}), not {shown(word)}")
    return frozenset({*TRIED_AGAIN, *found})


def perform(
    plan: Plan,
    todo: list[Cell],
    store: ResultStore,
    executor: Executor,
    leave_out: bool,
    named: bool = True,
    again: Collection[str] = TRIED_AGAIN,
    repeat: bool = False,
    limit: Limit | None = None,
) -> Performed:
    """Examine candidates from outside, then run the cells that are missing.

    Args:
        plan: of the command.
        todo: its cells that are to run.
        store: gets the rows.
        executor: runs them.
        leave_out: whether the others are measured where a candidate breaks the contract.
        named: whether the patterns were named. Where they were not, an undecorated class, which
            claims none, is measured on those that it can hold.
        again: outcomes that are tried again, as `parse_retry` gives them.
        repeat: whether costs that others disturbed are measured again at the end; within a limit
            they are not.
        limit: of the time; None: all cells are run.
    """
    rejected = _examine(todo)
    if rejected and not named:
        cannot = _cannot_hold(rejected, plan)
        rejected = [r for r in rejected if (r.attention, r.pattern) not in cannot]
        plan = plan.without_patterns(cannot)
        kept = {cell.key for cell in plan.cells}
        todo = [cell for cell in todo if cell.key in kept]
    if rejected:
        refused = {rejection.attention for rejection in rejected}
        plan = plan.without(refused)
        leave_out = leave_out and bool(plan.candidates)
        _refuse(rejected, leave_out)
        if not leave_out:
            return Performed(plan, 2)
        todo = [cell for cell in todo if cell.attention not in refused]
    run = _Run(store, executor, again)
    repeat = repeat and limit is None
    if todo and not (run.execute(todo, limit) and (not repeat or run.repeat(todo))):
        done = run.ended(todo)
        console.print(
            f"\ninterrupted: {done} of {len(todo)} cells are stored in {store.root}; "
            "run the same command again to go on",
            soft_wrap=True,
        )
        return Performed(plan, 130)
    if run.left_out:
        console.print(
            f"time budget of {duration(limit.seconds) if limit else ''}: "
            f"{count(len(run.left_out), 'cell')} left out; "
            "the same command without --time-budget measures them",
            soft_wrap=True,
        )
    return Performed(plan, None, run.left_out)


def _examine(todo: list[Cell]) -> list[Rejection]:
    """Hold candidates from outside to the contract, before anything is trained or timed."""
    from runners.gate import examine_candidates, to_examine

    waiting = to_examine(todo)
    if waiting:
        names = ", ".join(waiting)
        console.print(dim(f"holding {names} to the attention contract"), soft_wrap=True)
    return examine_candidates(todo)


def _cannot_hold(rejected: Sequence[Rejection], plan: Plan) -> set[tuple[str, str]]:
    """Attentions and patterns to leave out: of undecorated classes that hold another pattern. Says
    so, with the first broken rule of each.
    """
    from cab.attention_contract import is_undecorated
    from cab.registries import ATTENTIONS

    failed = {(r.attention, r.pattern) for r in rejected}
    holding = {c.attention for c in plan.cells if (c.attention, c.pattern) not in failed}
    found = set()
    for one in rejected:
        if "import" in one.violations or one.attention not in holding:
            continue
        if is_undecorated(ATTENTIONS.class_at(one.target)):
            found.add((one.attention, one.pattern))
            rule, what = next(iter(one.violations.items()))
            console.print(
                f"{one.attention} cannot hold {one.pattern}: left out ({rule}: {what})",
                soft_wrap=True,
            )
    return found


def _refuse(rejected: Sequence[Rejection], leave_out: bool) -> None:
    """Say what is wrong with candidates, a line for each broken rule, and what to do.

    Args:
        rejected: at least one.
        leave_out: whether the run goes on without them.
    """
    for line in dict.fromkeys(line for one in rejected for line in one.lines()):
        complain(line)
    for name, target, pattern in dict.fromkeys(
        (r.attention, r.target, r.pattern) for r in rejected
    ):
        what = f"{name} is left out" if leave_out else "nothing is measured"
        complain(f"{what}; see every rule with: cab check {target} --pattern {pattern}")


class _Run:
    """Executes cells with a display of how far they are."""

    def __init__(self, store: ResultStore, executor: Executor, again: Collection[str]) -> None:
        # A scheduler's polite end is handled as the user's own.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._store, self._executor, self._again = store, executor, again
        self._ended: set[str] = set()
        self._cost_seconds = 0.0
        self.left_out: list[Cell] = []
        """Cells that the time did not suffice for"""

    def execute(self, todo: list[Cell], limit: Limit | None = None) -> bool:
        """Run cells, within a limit those that it holds; whether nobody interrupted it."""
        from runners.session import run_cells
        from runners.within import run_within

        def run(handle: Callable[[Event], None]) -> None:
            def some(cells: Sequence[Cell]) -> None:
                run_cells(list(cells), self._store, self._executor, handle, self._again)

            if limit is None:
                some(todo)
                return
            width = self._executor.width([cell for cell in todo if cell.kind == "quality"])
            self.left_out = run_within(todo, limit.seconds, width, limit.expected, some)

        return self._displayed(todo, run)

    def repeat(self, todo: list[Cell]) -> bool:
        """Measure again what others disturbed of the costs of some cells, for at most half of the
        time that these took; whether nobody interrupted it.
        """
        from runners.again import Again, disturbed_cells, measure_again

        cells = disturbed_cells(todo, self._store)
        if not cells:
            return True
        disturbed = count(sum(len(cell.only) for cell in cells), "point")
        seconds = max(_LEAST_SECONDS, self._cost_seconds / 2)
        console.print(
            f"{disturbed} of cost disturbed by others: measured again, {duration(seconds)} at most",
            soft_wrap=True,
        )
        found: list[Again] = []

        def run(handle: Callable[[Event], None]) -> None:
            found.append(measure_again(cells, self._store, self._executor, handle, seconds))

        if not self._displayed(cells, run):
            return False
        if found[0].after:
            console.print(
                f"{count(found[0].after, 'point')} still disturbed; on a quieter machine: "
                f"the same command with --retry {DISTURBED}",
                soft_wrap=True,
            )
        return True

    def ended(self, todo: Collection[Cell]) -> int:
        """How many of the cells have ended, and are stored."""
        return sum(cell.key in self._ended for cell in todo)

    def _displayed(
        self, cells: Sequence[Cell], run: Callable[[Callable[[Event], None]], None]
    ) -> bool:
        from runners.display import RunDisplay

        with RunDisplay(console, cells, self._executor.width(cells)) as display:

            def handle(event: Event) -> None:
                self._note(event)
                display.handle(event)

            try:
                run(handle)
            except KeyboardInterrupt:
                return False
        return True

    def _note(self, event: Event) -> None:
        from runners.executors.events import Ended

        if isinstance(event, Ended):
            self._ended.add(event.cell.key)
            self._cost_seconds += event.seconds if event.cell.kind == "efficiency" else 0.0
