"""Leaderboards of quality as sheets: by pattern, over all patterns, and by Bradley-Terry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cab.cli.sheet import Column, Line, Sheet, Value, bounds, interval_data, number, signed
from cab.cli.tables import plus_minus
from cab.info import Kind
from cab.registries import ATTENTIONS
from cab.scoring.bradley_terry import Rating
from cab.scoring.intervals import UNKNOWN, Interval
from cab.scoring.overall import OverallStanding, overall
from cab.scoring.quality import (
    DISCRIMINATION,
    Discrimination,
    QualityBoard,
    Separation,
    Standing,
)
from cab.scoring.results import Results

LEGEND = (
    "index: mean over tasks of the signed log-ratio to softmax, paired by seed; +0.1 is about 10 % "
    "better. 95 % interval: what other tasks of this kind and other seeds would give; these tasks: "
    "what other seeds would give on these very tasks.",
    "= not distinguishable from the entry above; ~ different on these tasks, other tasks may swap "
    "them; ranks: 95 % interval of the rank.",
)
"""How to read a leaderboard by index"""


def controls() -> set[str]:
    """Ids of the reference points that every leaderboard carries."""
    return {info.id for info in ATTENTIONS.infos() if info.kind is Kind.CONTROL}


def kept(attention: str, grade: str, wanted: str | None) -> bool:
    """Whether an entry is shown under a choice of grade; controls always are."""
    return wanted is None or grade == wanted or attention in controls()


def board_sheet(
    results: Results,
    board: QualityBoard,
    pattern: str,
    scale: str,
    device: str,
    grade: str | None = None,
) -> Sheet:
    """The leaderboard of one pattern."""
    standings = [s for s in board.standings if kept(s.attention, s.grade, grade)]
    title = f"{pattern} ({scale}, {device})"
    notes = [*board_notes(board), *_failures(results, pattern, scale, device)]
    if len(standings) < len(board.standings):
        notes.append("ranks count the hidden entries too")
    about: dict[str, Value] = {"pattern": pattern, "scale": scale, "device": device}
    return standings_sheet(standings, board.tasks, title, about, notes)


def standings_sheet(
    standings: Sequence[Standing],
    tasks: Sequence[str],
    title: str,
    about: dict[str, Value] | None = None,
    notes: Sequence[str] = (),
) -> Sheet:
    """Rank, entry, grade, index with its intervals, and the score by task."""
    partial = any(s.missing for s in standings)
    columns = [
        Column("#", right=True),
        Column("ranks", right=True, keep=3),
        Column("attention"),
        Column("grade"),
        Column("index", right=True),
        Column("95 % interval", right=True),
        Column("these tasks", right=True, keep=2),
        *([Column("beats softmax", right=True, keep=1)] if partial else []),
        *(Column(task, right=True, keep=4) for task in tasks),
    ]
    lines = []
    for s in standings:
        shown = [
            *_rank_words(s.rank, s.ranks, s.separation),
            s.entry,
            s.grade,
            signed(s.index.value) if s.index.n else "-",
            bounds(s.index),
            bounds(s.here),
            *([_chance(s.rating)] if partial else []),
            *(signed(s.tasks.get(task, math.nan)) for task in tasks),
        ]
        data: dict[str, Value] = {
            **_rank_data(s.rank, s.ranks, s.separation),
            "entry": s.entry,
            "attention": s.attention,
            "grade": s.grade,
            **interval_data("index", s.index),
            "these_tasks_low": number(s.here.low),
            "these_tasks_high": number(s.here.high),
            **_rating_data(s.rating),
            "seeds": s.index.n or None,
            "missing": "; ".join(s.missing),
            **{task: number(s.tasks.get(task, math.nan)) for task in tasks},
        }
        lines.append(Line(tuple(shown), data))
    return Sheet(title, tuple(columns), tuple(lines), about or {}, tuple(notes))


def overall_sheet(
    boards: Mapping[str, QualityBoard], scale: str, device: str, grade: str | None = None
) -> Sheet | None:
    """Over all patterns that have tasks; None below two of them."""
    standings = overall(boards)
    grades = {
        (pattern, s.entry): s.grade for pattern, board in boards.items() for s in board.standings
    }
    patterns = [
        pattern
        for pattern, board in boards.items()
        if any(s.rank is not None for s in board.standings)
    ]
    if len(patterns) < 2:
        return None
    shown_standings = [
        s
        for s in standings
        if any(kept(s.attention, grades.get((p, s.entry), ""), grade) for p in patterns)
    ]
    columns = (
        Column("#", right=True),
        Column("ranks", right=True, keep=3),
        Column("attention"),
        Column("index", right=True),
        Column("95 % interval", right=True),
        Column("these tasks", right=True, keep=2),
        Column("beats softmax", right=True, keep=1),
        *(Column(pattern, right=True, keep=4) for pattern in patterns),
    )
    lines = tuple(_overall_line(s, patterns) for s in shown_standings)
    notes = (
        "the mean of the patterns' indices; an entry that lacks a pattern or a task has no index, "
        "and a place by the chance of beating softmax on a task (Bradley-Terry), tasks that it "
        "lacks counting as lost",
    )
    about: dict[str, Value] = {"pattern": "overall", "scale": scale, "device": device}
    return Sheet(f"overall ({scale}, {device})", columns, lines, about, notes)


def _overall_line(s: OverallStanding, patterns: Sequence[str]) -> Line:
    shown = (
        *_rank_words(s.rank, s.ranks, s.separation),
        s.entry,
        signed(s.index.value) if s.index.n else "-",
        bounds(s.index),
        bounds(s.here),
        _chance(s.rating),
        *(signed(s.patterns.get(pattern, math.nan)) for pattern in patterns),
    )
    data: dict[str, Value] = {
        **_rank_data(s.rank, s.ranks, s.separation),
        "entry": s.entry,
        "attention": s.attention,
        **interval_data("index", s.index),
        "these_tasks_low": number(s.here.low),
        "these_tasks_high": number(s.here.high),
        **_rating_data(s.rating),
        "missing": "; ".join(s.missing),
        **{pattern: number(s.patterns.get(pattern, math.nan)) for pattern in patterns},
    }
    return Line(shown, data)


def rating_sheet(
    board: QualityBoard, pattern: str, scale: str, device: str, grade: str | None = None
) -> Sheet:
    """Bradley-Terry strengths, which need no complete table."""
    standings = sorted(
        (s for s in board.standings if s.rating and kept(s.attention, s.grade, grade)),
        key=lambda s: (-(s.rating.strength.value if s.rating else 0.0), s.entry),
    )
    columns = (
        Column("#", right=True),
        Column("attention"),
        Column("grade"),
        Column("strength", right=True),
        Column("95 % interval", right=True),
        Column("beats softmax", right=True),
        Column("tasks", right=True),
    )
    lines = []
    for place, s in enumerate(standings, start=1):
        rating = s.rating
        assert rating is not None
        games = f"{rating.games} of {len(board.tasks)}"
        words = signed(rating.strength.value, 2), _range(rating.strength), _chance(rating), games
        data: dict[str, Value] = {
            "rank": place, "entry": s.entry, "attention": s.attention, "grade": s.grade,
            **_rating_data(rating), "tasks": rating.games,
        }  # fmt: skip
        lines.append(Line((str(place), s.entry, s.grade, *words), data))
    return Sheet(
        f"{pattern}, Bradley-Terry ({scale}, {device})",
        columns,
        tuple(lines),
        {"pattern": pattern, "scale": scale, "device": device},
        (
            *board_notes(board),
            "strength: log-odds of beating softmax on a task; a difference inside the noise of the "
            "seeds is half a win. Tasks that an entry lacks count as lost in the strength, and as "
            "unknown in the upper end of its interval.",
        ),
    )


def board_notes(board: QualityBoard) -> list[str]:
    """What a reader must know beside the standings."""
    notes = [left_out_words(found) for found in board.left_out]
    if board.probes:
        notes.append(f"probes are ranked on their own (--task probes): {', '.join(board.probes)}")
    if len(board.tasks) in (2, 3):
        notes.append(
            f"{len(board.tasks)} tasks say little about other tasks: the 95 % interval is wide for "
            "that reason; what is certain of these is in the column these tasks"
        )
    if board.unjudged:
        notes.append(f"not enough seeds of softmax and none to judge: {', '.join(board.unjudged)}")
    for standing in board.standings:
        if standing.missing:
            partial = board.partial(standing.entry)
            words = [
                f"{task} (has {partial[task][0]} of softmax's {partial[task][1]} seeds)"
                if task in partial
                else task
                for task in standing.missing
            ]
            notes.append(f"{standing.entry} has no index: no full result on {', '.join(words)}")
    return notes


def left_out_words(found: Discrimination) -> str:
    """Why a task does not count, with its numbers."""
    direction = (
        f"softmax beats none by {found.ratio:.1f} seed standard deviations only"
        if found.ratio > 0
        else "softmax does not beat none"
    )
    return (
        f"{found.task} is left out: {direction} on {found.metric} "
        f"(softmax {plus_minus(found.softmax)}, none {plus_minus(found.none)}; "
        f"{DISCRIMINATION:g} are asked for), so it does not measure attention here"
    )


def _failures(results: Results, pattern: str, scale: str, device: str) -> list[str]:
    """Cells without a result: they are part of what is known of an entry."""
    rows = results.select(kind="quality", pattern=pattern, scale=scale, device=device)
    failed = rows[rows["status"] != "ok"]
    grouped = failed.groupby(["entry", "task", "status"], observed=True)["cell"].nunique()
    return [
        f"{row.entry} on {row.task}: {row.cell} x {row.status}"
        for row in grouped.reset_index().itertuples(index=False)
    ]


def _rank_words(
    rank: int | None, ranks: tuple[int, int] | None, separation: Separation
) -> tuple[str, str]:
    place = "" if rank is None else f"{separation.mark}{rank}"
    if ranks is None:
        return place, "-"
    return place, str(ranks[0]) if ranks[0] == ranks[1] else f"{ranks[0]}-{ranks[1]}"


def _rank_data(
    rank: int | None, ranks: tuple[int, int] | None, separation: Separation
) -> dict[str, Value]:
    return {
        "rank": rank,
        "rank_low": ranks[0] if ranks else None,
        "rank_high": ranks[1] if ranks else None,
        "differs_from_above": separation.value if rank not in (None, 1) else None,
    }


def _rating_data(rating: Rating | None) -> dict[str, Value]:
    strength, chance = (rating.strength, rating.chance) if rating else (UNKNOWN, UNKNOWN)
    return {**interval_data("strength", strength), **interval_data("beats_softmax", chance)}


def _range(interval: Interval) -> str:
    if not interval.known:
        return "-"
    return f"{signed(interval.low, 2)} .. {signed(interval.high, 2)}"


def _chance(rating: Rating | None) -> str:
    """``63 % (20-92)``."""
    if rating is None or not math.isfinite(rating.chance.value):
        return "-"
    chance = rating.chance
    if not chance.known:
        return f"{100 * chance.value:.0f} %"
    return f"{100 * chance.value:.0f} % ({100 * chance.low:.0f}-{100 * chance.high:.0f})"
