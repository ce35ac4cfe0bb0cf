"""``cab run``: plan, measure what the store lacks, and set the result beside the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cab.cell import Cell
from cab.cli.console import bold, console, dim, words
from cab.cli.execution import Limit, Performed, chosen_executor, parse_retry, perform
from cab.cli.expectation import cell_times, expected_times
from cab.cli.options import parse_device, parse_options
from cab.controls import CONTROLS, MEASURES, NO_ATTENTION, QUALITY
from cab.errors import UsageError
from cab.registries import ALL
from cab.regularisers import times_words
from cab.request import Request
from cab.result_sources import ResultSources
from cab.schema import Status
from cab.store import ResultStore
from cab.track import Setting
from cab.visible import visible

if TYPE_CHECKING:
    from cab.scoring.results import Results
    from runners.planner import Plan


def run_command(
    *,
    attentions: list[str],
    hybrids: list[str],
    conv: int,
    patterns: list[str],
    tasks: list[str],
    scale: str,
    seeds: int,
    device: str,
    measures: list[str],
    options: list[str],
    preset: str,
    adversarial: float,
    steps: float,
    data_dir: Path | None,
    out: Path,
    time_budget: float | None,
    retry: str,
    executor: str,
    executor_options: Sequence[str],
    executor_flags: Mapping[str, float | None],
    dry_run: bool,
    reference: bool = True,
) -> int:
    """Run a request; the exit code is 0, 1 where a cell of a candidate failed, 2 where a candidate
    breaks the contract, 130 after Ctrl-C.
    """
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {data_dir} is not a folder")
    if not measures:
        raise UsageError(f"--measure names nothing; choose from {', '.join(MEASURES)}")
    if not attentions and not hybrids:
        raise UsageError("name what to measure: --attn lla, or --hybrid lla:1,linear-elu:3")
    again = parse_retry(retry)
    sources = ResultSources.at(out, reference)
    store = sources.own
    store.files()
    if not dry_run:
        store.prepare()
    given = parse_options(options)

    from runners.environment import available_cores, device_name
    from runners.planner import make_plan
    from runners.session import missing_cells, reference_controls

    device = parse_device(device)
    if device == "cpu" and (executor_flags.get("replicas") or 1) > 1:
        raise UsageError("--replicas needs a GPU for each of them, and the device is cpu")
    chosen = chosen_executor(executor, executor_options, executor_flags)
    request = Request(
        attentions=attentions,
        hybrids=hybrids,
        conv=conv,
        patterns=patterns,
        tasks=tasks,
        scale=scale,
        seeds=seeds,
        device=device,
        measures=measures,
        options=given,
        preset=preset,
        data_dir=data_dir,
        adversarial=adversarial,
        steps=steps,
    )
    plan = make_plan(request, machine=f"{device_name(device)}, {available_cores()} cores")
    taken = reference_controls(plan.cells, plan.candidates, sources)
    from_reference = {cell.key for cell in taken}
    own = [cell for cell in plan.cells if cell.key not in from_reference]
    todo = missing_cells(own, store, again)
    beside = None if dry_run else store.beside.note()
    for note in (*plan.notes, *([beside] if beside else [])):
        console.print(dim(note))
    console.print(
        f"{len(plan.cells)} cells, {len(own) - len(todo)} in {out} already, "
        f"{len(todo)} to run ({_setting(scale, device, steps)})",
        soft_wrap=True,
    )
    if taken:
        console.print(f"{reference_words(taken)}; --no-reference measures them here")
    if dry_run:
        _print_cells(plan.cells, {cell.key for cell in todo}, from_reference)
        for line in expected_times(todo, sources, chosen.width(todo)):
            console.print(line, soft_wrap=True)
        return 0
    limit = None if time_budget is None else Limit(time_budget, cell_times(sources))
    performed = perform(
        plan, todo, store, chosen, leave_out=ALL in attentions, named=ALL not in patterns,
        again=again, repeat=True, limit=limit,
    )  # fmt: skip
    if performed.code is not None:
        return performed.code
    _show(_whole_seeds(performed), scale, device, sources, steps)
    # A candidate that is left out altogether has failed; a pattern that one does not claim has not.
    asked = {pattern.value for pattern in performed.plan.patterns}
    measured = {cell.key for cell in performed.plan.cells}
    refused = {cell.attention for cell in own} - {c.attention for c in performed.plan.cells}
    own = [
        cell
        for cell in own
        if cell.key in measured or (cell.attention in refused and cell.pattern in asked)
    ]
    late = {cell.key for cell in performed.left_out}
    own = [cell for cell in own if cell.key not in late]
    return _exit_code(own, store)


def _whole_seeds(performed: Performed) -> Plan:
    """The plan without scores of seeds that the time did not suffice for, of controls as well: an
    index is of the same seeds for all. Costs stay: each process is one more repetition.
    """
    short = {cell.seed for cell in performed.left_out if cell.kind == QUALITY}
    if not short:
        return performed.plan
    seeds = {cell.seed for cell in performed.plan.cells if cell.kind == QUALITY} - short
    if not seeds:  # not even the first one is whole: what there is
        return performed.plan
    which = "seed" if len(seeds) == 1 else "seeds"
    console.print(f"scores below are of {which} {', '.join(map(str, sorted(seeds)))}")
    kept = [c for c in performed.plan.cells if c.kind != QUALITY or c.seed in seeds]
    return replace(performed.plan, cells=kept)


def _setting(scale: str, device: str, steps: float) -> str:
    """``small, cpu``, with the multiple of the recipe's steps where it is another one."""
    return (
        f"{scale}, {device}" if steps == 1.0 else f"{scale}, {device}, {times_words(steps)} steps"
    )


def _show(plan: Plan, scale: str, device: str, sources: ResultSources, steps: float) -> None:
    from cab.scoring.results import joined, load_results
    from cab.sheets.notes import unread_notes
    from cab.sheets.reference import reference_notes

    # Of this run alone: the reference results hold tasks and seeds that it did not ask for.
    keys = [cell.key for cell in plan.cells]
    results = load_results(sources, cells=keys, steps=steps)
    if steps != 1.0:
        results = joined(results, load_results(sources, cells=keys))  # what costs were measured
    patterns = [str(pattern) for pattern in plan.patterns]
    title = _setting(scale, device, steps)
    _print_results(plan.candidates, patterns, Setting(scale, device), title, results, sources.own)
    notes = reference_notes(sources, results.rows["label"].unique())
    if steps != 1.0:
        notes.append(
            "what was trained for another number of steps stands on no leaderboard; below them is "
            "said whether ranks stay, where the recipe's own steps were measured too"
        )
    for note in [*notes, *unread_notes(results)]:
        console.print(dim(note))


def reference_words(taken: list[Cell]) -> str:
    """``softmax, none: 18 cells from the reference results``."""
    names = ", ".join(dict.fromkeys(cell.attention for cell in taken))
    cells = "1 cell" if len(taken) == 1 else f"{len(taken)} cells"
    return f"{names}: {cells} from the reference results"


def _print_cells(cells: list[Cell], missing: set[str], taken: set[str]) -> None:
    """A line a cell. They can be thousands, so they are laid out here: a table that looks for where
    to wrap each of them takes as long as the planning.
    """
    lines = [("", "kind", "attention", "pattern", "task", "seed")]
    for cell in cells:
        what = cell.task if cell.kind == "quality" else ", ".join(cell.measures)
        state = "run" if cell.key in missing else "stored"
        state = "reference" if cell.key in taken else state
        lines.append((state, cell.kind, cell.attention, cell.pattern, what, str(cell.seed)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print(visible("  ".join(map(str.ljust, line, widths)).rstrip()))


def _print_results(
    candidates: list[str],
    patterns: list[str],
    setting: Setting,
    title: str,
    results: Results,
    store: ResultStore,
) -> None:
    from cab.cli.formats import print_sheet
    from cab.scoring.boards import board
    from cab.scoring.read_shares import mean_densities
    from cab.sheets.notes import board_notes
    from cab.sheets.run_costs import run_cost_sheets
    from cab.sheets.scored import scored_sheet
    from cab.sheets.standings import standings_sheet

    for pattern in patterns:
        track = setting.track(pattern)
        present = results.select(track)
        entries = [
            entry
            for attention in [
                *(c for c in candidates if c not in CONTROLS),
                *CONTROLS,
            ]
            for entry in sorted(present[present["attention"] == attention]["entry"].unique())
        ]
        console.print(words("\n", bold(pattern), f" ({title})"))
        scores = scored_sheet(results, track, entries, console.width)
        if scores is not None:
            print_sheet(scores)
            found = board(results, track)
            standings = [s for s in found.standings if s.entry in entries]
            heading = "\nIndex (0 = softmax)"
            print_sheet(
                standings_sheet(
                    standings, found.tasks, heading, notes=board_notes(found),
                    density=mean_densities(results, track, found.tasks),
                )
            )  # fmt: skip
        timed = [entry for entry in entries if entry != NO_ATTENTION]
        for sheet in run_cost_sheets(results, track, timed):
            console.print()
            print_sheet(sheet)
    measured = f"\nParquet: {store.root} ({len(store.files())} files). Next: "
    console.print(
        words(measured, bold("cab leaderboard"), " or ", bold("cab dashboard")), soft_wrap=True
    )


def _exit_code(cells: list[Cell], store: ResultStore) -> int:
    statuses = store.statuses()
    failed = [c for c in cells if Status.OK.value not in statuses.get(c.key, set())]
    return 1 if failed else 0
