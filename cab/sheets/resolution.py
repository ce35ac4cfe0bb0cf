"""What a board can tell, in words and as sheets: computed in `cab.scoring.resolution`, and the same
in the terminal, in files, in the report and on the dashboard.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from cab.scoring.detectable import POWER
from cab.scoring.pairwise import Relation
from cab.scoring.quality import Ranked, Separation
from cab.scoring.resolution import Resolution
from cab.sheets import columns
from cab.sheets.sheet import Column, Line, Sheet, Value, interval_data
from cab.sheets.words import NOTHING, count, count_range, number, percent, significant
from cab.track import Track

LEAD = "What this board can tell"

SIGNAL_IS = (
    "signal: standard deviation between mechanisms; noise: between seeds, what moves all alike "
    "left out; S/N: one over the other (after arXiv 2508.13144), with its 95 % interval"
)
CONTRIBUTION_IS = (
    "share: of the index's spread over mechanisms; τ: Kendall's, of the ranking with the ranking "
    "without the task; swaps: pairs that stand the other way round without it"
)
MATRIX_IS = (
    "row over column, in the order of ranks: + better in general, > better on these tasks, . not "
    "distinguishable, < worse on these tasks, - worse in general, ? one seed tells nothing"
)
"""What the characters of a matrix are, `cab.scoring.pairwise.Relation`"""
DETECTABLE_IS = (
    f"difference of index that the t test between two entries finds with {percent(POWER)} power; "
    "median over pairs of mechanisms"
)


def summary(found: Resolution) -> str:
    """A paragraph."""
    design = ", ".join(
        [
            count(len(found.entries), "ranked entry", "ranked entries"),
            count(len(found.tasks), "task"),
            f"{count_range(*found.seeds)} {'seed' if found.seeds == (1, 1) else 'seeds'}",
        ]
    )
    return " ".join([f"{LEAD}: {design}.", *_separated(found), *_seen(found), *_tasks(found)])


def separated_words(ranked: Sequence[Ranked]) -> str:
    """How many neighbours differ, by the marks before their ranks; nothing below two, or where a
    single seed tells nothing.
    """
    placed = [s for s in ranked if s.rank is not None]
    if len(placed) < 2 or any(s.ranks is None for s in placed):
        return ""
    marks = [s.separation for s in placed[1:]]
    general = marks.count(Separation.GENERAL)
    return _separated_of(len(marks), general + marks.count(Separation.HERE), general)


def _separated_of(ranks: int, here: int, general: int) -> str:
    return (
        f"Of {count(ranks, 'adjacent rank')} the data separate {here} on these tasks "
        f"({percent(here / ranks)}), {general} of them in general."
    )


def _separated(found: Resolution) -> list[str]:
    neighbours = found.adjacent
    if not neighbours.known:
        return ["With a single seed nothing tells one rank from the next."]
    if len(found.tasks) == 1:
        return [
            f"Of {count(neighbours.ranks, 'adjacent rank')} the data separate {neighbours.here} on "
            f"this task ({percent(neighbours.share)}); one task says nothing of others."
        ]
    return [_separated_of(neighbours.ranks, neighbours.here, neighbours.general)]


def _seen(found: Resolution) -> list[str]:
    seen = found.detectable
    where = "on this task" if len(found.tasks) == 1 else "on these tasks"
    known = [
        (significant(size, 2), which)
        for size, which in ((seen.here, where), (seen.general, "in general"))
        if math.isfinite(size)
    ]
    if not known:
        return []
    (size, which), *others = known
    more = "".join(f", by {size} {which}" for size, which in others)
    return [
        f"Two mechanisms must differ by {size} to be told apart {which}{more} "
        f"({percent(POWER)} power)."
    ]


def _tasks(found: Resolution) -> list[str]:
    ratios = {task: s.ratio.value for task, s in found.signals.items()}
    known = sorted((task for task in ratios if ratios[task] >= 0), key=lambda task: -ratios[task])
    sentences = []
    if known:
        ends = [f"{_ratio(ratios[task])} ({task})" for task in dict.fromkeys((known[0], known[-1]))]
        sentences.append(f"Signal to noise of its tasks: {' to '.join(ends)}.")
    elif len(found.mechanisms) < 2:
        sentences.append("No mechanism but softmax is ranked, so nothing is said of its tasks.")
    parts = [part for part in found.contributions if math.isfinite(part.tau)]
    if parts:
        largest = max(parts, key=lambda part: part.share)
        sentences.append(f"{largest.task} makes {percent(largest.share)} of the index's spread.")
        turned = max(parts, key=lambda part: part.swapped)
        sentences.append(
            f"Leaving out {turned.task} changes the order most: {turned.swapped} of {turned.pairs} "
            f"pairs swap (Kendall's τ {turned.tau:.2f})."
            if turned.swapped
            else "The order is the same without any one of its tasks."
        )
    return sentences


def _ratio(value: float) -> str:
    if math.isnan(value):
        return NOTHING
    return "no noise" if math.isinf(value) else significant(value, 2) if value else "0"


def detail_sheets(
    found: Resolution, track: Track, entries: Collection[str] | None = None
) -> list[Sheet]:
    """What the tasks tell, who beats whom, and the smallest difference.

    Args:
        found: of the board.
        track: of the board.
        entries: those that have a row of the matrix; None: all that are ranked.
    """
    return [tasks_sheet(found, track), matrix_sheet(found, track, entries),
            detectable_sheet(found, track)]  # fmt: skip


def tasks_sheet(found: Resolution, track: Track) -> Sheet:
    """A line per task: its signal and noise, and what it contributes to the ranking."""
    lines = []
    for task in found.tasks:
        signal, part = found.signals[task], found.contribution(task)
        ratio = signal.ratio
        interval = f"{_ratio(ratio.low)} .. {_ratio(ratio.high)}" if ratio.known else NOTHING
        data: dict[str, Value] = {
            "task": task, "signal": number(signal.signal), "noise": number(signal.noise),
            **interval_data("signal_to_noise", ratio), "mechanisms": ratio.n, "seeds": signal.seeds,
        }  # fmt: skip
        shown = [task, _size(signal.signal), _size(signal.noise), _ratio(ratio.value), interval]
        if found.contributions:
            assert part is not None
            data |= {
                "share": number(part.share), "tau_without": number(part.tau),
                "swapped": part.swapped, "pairs": part.pairs, "moved": part.moved,
                "places": part.places,
            }  # fmt: skip
            several = math.isfinite(part.tau)
            shown += [
                percent(part.share) if math.isfinite(part.share) else NOTHING,
                f"{part.tau:.2f}" if several else NOTHING,
                f"{part.swapped}/{part.pairs}" if several else NOTHING,
                f"{part.moved} {part.places:+d}" if part.moved else NOTHING,
            ]
        lines.append(Line(tuple(shown), data))
    headings = [
        columns.TASK,
        Column("signal", right=True, keep=2, key="signal", more=True),
        Column("noise", right=True, keep=2, key="noise", more=False),
        Column("S/N", right=True, key="signal_to_noise", page="Signal to noise", more=True),
        Column(columns.LEVEL, right=True, keep=1),
    ]
    notes = [SIGNAL_IS]
    if found.contributions:
        headings += [
            Column("share", right=True, page="Share of the spread"),
            Column("τ", right=True, page="τ without it", key="tau_without"),
            Column("swaps", right=True, page="Pairs that swap"),
            Column("moves most", keep=3, page="Moves most without it"),
        ]
        notes.append(CONTRIBUTION_IS)
    else:
        notes.append("fewer than three mechanisms are ranked: no task contributes to an order")
    title = track.titled(f"{track.pattern}, what its tasks tell")
    return Sheet(title, tuple(headings), tuple(lines), {**track.about}, tuple(notes))


def matrix_sheet(found: Resolution, track: Track, entries: Collection[str] | None = None) -> Sheet:
    """A line per ranked entry with a character for every other one."""
    whole = found.pairwise
    lines = []
    for place, entry in enumerate(whole.entries):
        if entries is not None and entry not in entries:
            continue
        row = whole.row(place)
        data: dict[str, Value] = {
            "entry": entry, "rank": place + 1, "against": "".join(row),
            "better": row.count(Relation.BETTER), "better_here": row.count(Relation.BETTER_HERE),
            "same": row.count(Relation.SAME), "worse_here": row.count(Relation.WORSE_HERE),
            "worse": row.count(Relation.WORSE), "seeds": count_range(*whole.seeds),
        }  # fmt: skip
        lines.append(Line((str(place + 1), entry, "".join(row)), data))
    headings = (columns.RANK, columns.ENTRY, Column(_ruler(len(whole.entries)), page="Over"))
    neighbours = found.adjacent
    notes = [f"{MATRIX_IS}; corrected for {count(whole.count, 'pair')} (Holm)"]
    if neighbours.known:
        notes.append(
            f"corrected for their number (Holm), of {count(neighbours.ranks, 'adjacent rank')} the "
            f"data separate {neighbours.here_corrected} on these tasks, "
            f"{neighbours.general_corrected} of them in general"
        )
    if found.unranked:
        notes.append(f"without an index and not here: {', '.join(found.unranked)}")
    title = track.titled(f"{track.pattern}, who beats whom")
    return Sheet(title, headings, tuple(lines), {**track.about}, tuple(notes))


def _ruler(size: int) -> str:
    """Ranks above the characters of a matrix: ``1   5    10``."""
    ruler = [" "] * size
    for rank in range(1, size + 1):
        words = str(rank)
        # The last digit stands above the character.
        if (rank == 1 or rank % 5 == 0) and rank >= len(words):
            ruler[rank - len(words) : rank] = words
    return "".join(ruler)


def detectable_sheet(found: Resolution, track: Track) -> Sheet:
    """The smallest difference of two entries: compared alone, and as one of all pairs."""
    seen = found.detectable
    lines = []
    for name, alone, of_all, pairs in (
        ("on these tasks", seen.here, seen.here_of_all, seen.pairs_here),
        ("in general", seen.general, seen.general_of_all, seen.pairs_general),
    ):
        data: dict[str, Value] = {
            "what": name, "alone": number(alone), "among_all_pairs": number(of_all),
            "pairs": pairs, "power": POWER, "tasks": len(found.tasks),
            "seeds": count_range(*found.seeds),
        }  # fmt: skip
        lines.append(Line((name, _size(alone), _size(of_all)), data))
    headings = (
        Column("difference", page="Where"),
        Column("two entries", right=True, key="alone", more=False),
        Column(f"among all {found.pairwise.count} pairs", right=True, key="among_all_pairs",
               more=False),
    )  # fmt: skip
    title = track.titled(f"{track.pattern}, the smallest difference to be seen")
    return Sheet(title, headings, tuple(lines), {**track.about}, (DETECTABLE_IS,))


def _size(value: float) -> str:
    return significant(value, 2) if math.isfinite(value) else NOTHING
