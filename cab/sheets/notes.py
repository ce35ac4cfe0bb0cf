"""What a reader must know beside a table: what is left out and why, what failed, what it was
measured on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cab.controls import BASELINE, NO_ATTENTION
from cab.scoring.quality import DISCRIMINATION, Discrimination, QualityBoard, Standing
from cab.scoring.results import Results
from cab.sheets.columns import GENERAL_IS, HERE_IS, INDEX_IS, LEVEL, MARKS
from cab.sheets.words import count, count_range, plus_minus
from cab.track import Track

INDEX = f"index: {INDEX_IS}. {LEVEL}: {GENERAL_IS}; these tasks: {HERE_IS}."
"""What the index and its intervals are"""
LEGEND = (
    INDEX,
    f"{MARKS}; ranks: 95 % interval of the rank, corrected for all comparisons (Holm).",
)
"""How to read a leaderboard by index"""
HIDDEN = "ranks count the hidden entries too"
SAME = "not distinguishable"
"""Of two entries whose difference may be noise"""
OF_SEEDS = "mean ± half of the 95 % interval over seeds"


def board_notes(
    board: QualityBoard,
    shown: Collection[Standing] | None = None,
    to_probes: str = "--task probes",
) -> list[str]:
    """What a reader must know beside the standings.

    Args:
        board: the standings.
        shown: those of them that the reader sees; None: all.
        to_probes: what the reader does to rank by probes.
    """
    notes = [left_out_words(found) for found in board.left_out]
    notes += [
        f"{task} is left out: it does not tell attention from none here; why: cab show {task}"
        for task in board.retired
    ]
    if board.probes:
        notes.append(f"probes are ranked on their own ({to_probes}): {', '.join(board.probes)}")
    if len(board.tasks) in (2, 3):
        notes.append(
            f"{len(board.tasks)} tasks say little about other tasks: the 95 % interval is wide for "
            "that reason; what is certain of these is in the column these tasks"
        )
    if board.unjudged:
        pair = f"{BASELINE} and {NO_ATTENTION}"
        notes.append(f"not enough seeds of {pair} to judge: {', '.join(board.unjudged)}")
    entries = board.standings if shown is None else shown
    return [*notes, *_fewer_seeds(board, entries), *_without_index(board, entries)]


def _fewer_seeds(board: QualityBoard, entries: Collection[Standing]) -> list[str]:
    """Entries that count with fewer seeds than softmax, by how many."""
    scores = board.scores
    found: dict[int, list[str]] = {}
    for standing in entries:
        if standing.index.n and not all(scores.complete(standing.entry, t) for t in scores.tasks):
            found.setdefault(standing.seeds[0], []).append(standing.entry)
    asked = count_range(*scores.seeds_of(BASELINE))
    ends = {1: "; their interval on these tasks is not known"}
    return [
        f"with {count(seeds, 'seed')} of {BASELINE}'s {asked}, the first on every task"
        f"{ends.get(seeds, '')}: {', '.join(names)}"
        for seeds, names in sorted(found.items(), reverse=True)
    ]


def _without_index(board: QualityBoard, entries: Collection[Standing]) -> list[str]:
    """What entries without an index lack; those that lack the same, together."""
    found: dict[str, list[str]] = {}
    for standing in entries:
        if standing.missing:
            partial = board.partial(standing.entry)
            words = [
                f"{task} ({partial[task][0]} of {BASELINE}'s {partial[task][1]} seeds: "
                "one is lacking before another, or came to nothing)"
                if task in partial
                else task
                for task in standing.missing
            ]
            found.setdefault(", ".join(words), []).append(standing.entry)
    return [
        f"{names[0]} has no index: no full result on {lacking}"
        if len(names) == 1
        else f"no index for want of {lacking}: {', '.join(names)}"
        for lacking, names in found.items()
    ]


def left_out_words(found: Discrimination) -> str:
    """Why a task does not count, with its numbers."""
    direction = (
        f"{BASELINE} beats {NO_ATTENTION} by {found.ratio:.1f} seed standard deviations only"
        if found.ratio > 0
        else f"{BASELINE} does not beat {NO_ATTENTION}"
    )
    return (
        f"{found.task} is left out: {direction} on {found.metric} "
        f"({BASELINE} {plus_minus(found.softmax)}, {NO_ATTENTION} {plus_minus(found.none)}; "
        f"{DISCRIMINATION:g} are asked for), so it does not measure attention here"
    )


def stale_notes(results: Results, track: Track, aside: Collection[str] = ()) -> list[str]:
    """Which tasks entries lack only because they were measured with other code.

    Args:
        results: current rows.
        track: what the table is of.
        aside: tasks of which nothing is to be said.
    """
    of_code: dict[str, list[str]] = {}
    of_task: dict[str, list[str]] = {}
    for stale in results.stale:
        if stale.track == track and stale.task not in aside:
            if stale.of_task:
                of_task.setdefault(stale.task, []).append(stale.entry)
            else:
                of_code.setdefault(stale.entry, []).append(stale.task)
    notes = [
        f"{entry}: {count(len(tasks), 'task')} measured with other code "
        f"of it left out: {', '.join(tasks)}"
        for entry, tasks in of_code.items()
    ]
    return notes + [
        f"{task}: measured with another version of the task and left out: {', '.join(entries)}"
        for task, entries in of_task.items()
    ]


def failure_notes(results: Results, track: Track) -> list[str]:
    """Cells without a result: they are part of what is known of an entry."""
    rows = results.select(track, kind="quality")
    failed = rows[rows["status"] != "ok"]
    grouped = failed.groupby(["entry", "task", "status"], observed=True)["cell"].nunique()
    return [
        f"{row.entry} on {row.task}: {row.cell} x {row.status}"
        for row in grouped.reset_index().itertuples(index=False)
    ]


def folder_notes(results: Results) -> list[str]:
    """What is left out of the results folder: rows that a newer version of the code or the data has
    replaced, and what could not be read as results.
    """
    replaced = f"{count(results.superseded, 'row')} of older code or data left out"
    return [*([replaced] if results.superseded else []), *unread_notes(results)]


def unread_notes(results: Results) -> list[str]:
    """Files of which something could not be read as results."""
    return [f"in {line}" for line in results.unread]


def machine_notes(results: Results, track: Track) -> list[str]:
    """What costs were measured on, and what was measured elsewhere and is left out for that."""
    machine = results.machine(track)
    if machine is None:
        return []
    notes = [f"measured on {machine.name}"]
    if machine.elsewhere:
        notes.append(f"left out, measured elsewhere: {', '.join(machine.elsewhere)}")
    return notes


def speaks_of(note: str, entries: Iterable[str]) -> bool:
    """Whether a note is about one of some entries."""
    return note.startswith(tuple(f"{entry}: " for entry in entries))
