"""Leaderboards of quality as sheets: by track, over all patterns, and by Bradley-Terry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from cab.controls import BASELINE
from cab.label import short_label
from cab.scoring.boards import family_of
from cab.scoring.intervals import UNKNOWN, Interval
from cab.scoring.overall import OverallStanding, overall
from cab.scoring.quality import QualityBoard, Ranked, Standing
from cab.scoring.read_shares import mean_densities
from cab.scoring.resolution import resolution
from cab.scoring.results import Results
from cab.sheets import columns
from cab.sheets.choice import ALL, Shown
from cab.sheets.hybrids import hybrid_notes
from cab.sheets.notes import HIDDEN, board_notes, failure_notes, stale_notes
from cab.sheets.resolution import separated_words, summary
from cab.sheets.sheet import Column, Field, Sheet, Value, columns_of, interval_data, lines_of
from cab.sheets.words import NOTHING, bounds, count_range, number, percent, share, signed
from cab.track import Setting, Track

OVERALL = "overall"
"""Stands for the pattern in what is over all of them"""

Item = TypeVar("Item")


def board_sheet(results: Results, board: QualityBoard, track: Track, shown: Shown = ALL) -> Sheet:
    """The leaderboard of one track."""
    standings = [s for s in board.standings if shown.keeps(s.attention, s.grade, s.label)]
    notes = [
        *board_notes(board),
        *hybrid_notes(results, track, board.tasks),
        *failure_notes(results, track),
    ]
    notes += stale_notes(results, track, aside=board.aside)
    if len(standings) < len(board.standings):
        notes.append(HIDDEN)
    density = mean_densities(results, track, board.tasks)
    sheet = standings_sheet(standings, board.tasks, track.title, {**track.about}, notes, density)
    told = resolution(board)
    return replace(sheet, summary=summary(told)) if told else sheet


def standings_sheet(
    standings: Sequence[Standing],
    tasks: Sequence[str],
    title: str,
    about: dict[str, Value] | None = None,
    notes: Sequence[str] = (),
    density: Mapping[str, float] | None = None,
) -> Sheet:
    """Rank, entry, grade, index with its intervals, and the score by task; how many tasks an entry
    has where one lacks some, and what share of the pairs is read where one says so.

    Args:
        standings: in their order.
        tasks: a column each.
        title: of the sheet.
        about: what all lines share.
        notes: what a reader must know.
        density: by entry, of those that say it (`cab.scoring.read_shares`).
    """
    partial = any(s.missing for s in standings)
    fields: list[Field[Standing]] = [
        RANK, RANKS, ENTRY, LABEL,
        Field(
            columns.FAMILY, lambda s: family_of(s.attention) or NOTHING,
            lambda s: {"family": family_of(s.attention)},
        ),
        GRADE, *([_has(len(tasks), "tasks")] if partial else []), *INDEX,
        replace(BEATS, column=None), _seeds(standings), MISSING,
        *_density(standings, density or {}),
        *score_fields(tasks, _tasks),
    ]  # fmt: skip
    return Sheet(title, columns_of(fields), lines_of(fields, standings), about or {}, tuple(notes))


def overall_sheet(
    boards: Mapping[str, QualityBoard], setting: Setting, shown: Shown = ALL
) -> Sheet | None:
    """Over all patterns that have tasks; None below two of them."""
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
    everything = overall(boards)
    standings = [
        s
        for s in everything
        if any(shown.keeps(s.attention, grades.get((p, s.entry), ""), s.label) for p in patterns)
    ]
    fields: list[Field[OverallStanding]] = [
        RANK, RANKS, ENTRY, LABEL, _has(len(patterns), "patterns"), *INDEX, BEATS, MISSING,
        *score_fields(patterns, _patterns),
    ]  # fmt: skip
    notes = (
        "the mean of the patterns' indices; an entry that lacks a pattern or a task is not ranked "
        f"and stands below, in no order of quality. beats {BASELINE}: on a task (Bradley-Terry)",
    )
    track = setting.track(OVERALL)
    return Sheet(
        track.title, columns_of(fields), lines_of(fields, standings), {**track.about}, notes,
        summary=separated_words(everything),
    )  # fmt: skip


def rating_sheet(board: QualityBoard, track: Track, shown: Shown = ALL) -> Sheet:
    """Bradley-Terry strengths, which need no complete table."""
    rated = [(s, s.rating) for s in board.standings if s.rating is not None]
    whole = [(s, rating) for s, rating in rated if not s.missing]
    whole.sort(key=lambda pair: (-pair[1].strength.value, pair[0].entry))
    places = {s.entry: place for place, (s, _) in enumerate(whole, start=1)}
    whole += [(s, rating) for s, rating in rated if s.missing]
    lines = [s for s, _ in whole if shown.keeps(s.attention, s.grade, s.label)]
    fields: list[Field[Standing]] = [
        Field(
            columns.RANK,
            lambda s: str(places.get(s.entry, "")), lambda s: {"rank": places.get(s.entry)},
        ),
        ENTRY, LABEL, GRADE, _has(len(board.tasks), "tasks"), *STRENGTH,
        replace(BEATS, column=columns.BEATS.kept(0)),
    ]  # fmt: skip
    return Sheet(
        track.titled(f"{track.pattern}, Bradley-Terry"),
        columns_of(fields),
        lines_of(fields, lines),
        {**track.about},
        (
            *board_notes(board),
            "strength: log-odds of beating softmax on a task; a difference inside the noise of the "
            "seeds is half a win. An entry that lacks tasks is not ranked: its interval goes from "
            "all of them lost to what it may be with them.",
        ),
    )


def score_fields(
    names: Sequence[str], of: Callable[[Item], Mapping[str, float]], keep: int = 4
) -> list[Field[Item]]:
    """A column of numbers by name: scores by task, indices by pattern."""

    def one(name: str) -> Field[Item]:
        return Field(
            columns.of_task(name, keep),
            lambda item: signed(of(item).get(name, math.nan)),
            lambda item: {name: number(of(item).get(name, math.nan))},
        )

    return [one(name) for name in names]


def _density(standings: Sequence[Standing], of: Mapping[str, float]) -> list[Field[Standing]]:
    """Nothing where no entry says what it reads."""
    if not any(s.entry in of for s in standings):
        return []
    column = replace(columns.DENSITY, key="")  # words: pages give the numbers of this table a sign
    return [
        Field(
            column,
            lambda s: share(of.get(s.entry, math.nan)),
            lambda s: {"density": number(of.get(s.entry, math.nan))},
        )
    ]


def _seeds(standings: Sequence[Standing]) -> Field[Standing]:
    """A column where entries count with different numbers of seeds, else data alone."""
    differ = len({s.seeds for s in standings if s.index.n}) > 1
    return Field(
        replace(columns.SEEDS, key="", keep=3) if differ else None,
        lambda s: count_range(*s.seeds) if s.index.n else NOTHING,
        lambda s: {"seeds": s.index.n or None},
    )


def _tasks(s: Standing) -> Mapping[str, float]:
    return s.tasks


def _patterns(s: OverallStanding) -> Mapping[str, float]:
    return s.patterns


def rank_words(s: Ranked) -> str:
    """``2``, ``=2`` or ``~2``; nothing for an entry without a rank."""
    return "" if s.rank is None else f"{s.separation.mark}{s.rank}"


def _ranks_words(s: Ranked) -> str:
    if s.ranks is None:
        return NOTHING
    return str(s.ranks[0]) if s.ranks[0] == s.ranks[1] else f"{s.ranks[0]}-{s.ranks[1]}"


def _rank_data(s: Ranked) -> dict[str, Value]:
    return {
        "rank": s.rank,
        "rank_low": s.ranks[0] if s.ranks else None,
        "rank_high": s.ranks[1] if s.ranks else None,
        "differs_from_above": s.separation.value if s.rank not in (None, 1) else None,
    }


def _here_data(s: Ranked) -> dict[str, Value]:
    return {"these_tasks_low": number(s.here.low), "these_tasks_high": number(s.here.high)}


def _point(s: Ranked, interval: Interval) -> Interval:
    """Without a value where the entry lacks something, which would count as lost in it."""
    return replace(interval, value=math.nan) if s.missing else interval


def _strength(s: Ranked) -> Interval:
    return _point(s, s.rating.strength) if s.rating else UNKNOWN


def _beats(s: Ranked) -> Interval:
    return _point(s, s.rating.chance) if s.rating else UNKNOWN


def _rating_data(s: Ranked) -> dict[str, Value]:
    return interval_data("strength", _strength(s)) | interval_data("beats_softmax", _beats(s))


def _chance(chance: Interval) -> str:
    """``63 % (20-92)``; of an entry that lacks something ``20-92 %``."""
    if not chance.known:
        return percent(chance.value) if math.isfinite(chance.value) else NOTHING
    between = f"{100 * chance.low:.0f}-{100 * chance.high:.0f}"
    return f"{percent(chance.value)} ({between})" if math.isfinite(chance.value) else f"{between} %"


def _has(total: int, noun: str) -> Field[Ranked]:
    """How many of so many tasks, or patterns, an entry has in full."""

    def count(s: Ranked) -> int:
        return total - len(s.missing)

    return Field(
        Column(noun, right=True),
        lambda s: f"{count(s)} of {total}", lambda s: {noun: count(s), f"{noun}_asked": total},
    )  # fmt: skip


RANK: Field[Ranked] = Field(columns.RANK, rank_words, _rank_data)
RANKS: Field[Ranked] = Field(columns.RANKS, _ranks_words)
ENTRY: Field[Ranked] = Field(
    columns.ENTRY, lambda s: s.entry, lambda s: {"entry": s.entry, "attention": s.attention}
)
LABEL: Field[Ranked] = Field(
    columns.LABEL, lambda s: short_label(s.label), lambda s: {"label": s.label}
)
GRADE: Field[Standing] = Field(columns.GRADE, lambda s: s.grade, lambda s: {"grade": s.grade})
INDEX: tuple[Field[Ranked], ...] = (
    Field(
        columns.INDEX,
        lambda s: signed(s.index.value) if s.index.n else NOTHING,
        lambda s: interval_data("index", s.index),
    ),
    Field(replace(columns.INTERVAL, help=columns.GENERAL_IS), lambda s: bounds(s.index)),
    Field(columns.HERE, lambda s: bounds(s.here), _here_data),
)
STRENGTH: tuple[Field[Ranked], ...] = (
    Field(
        Column("strength", right=True, more=True, number="strength"),
        lambda s: signed(_strength(s).value, 2),
    ),
    Field(columns.INTERVAL, lambda s: bounds(_strength(s), 2)),
)
BEATS: Field[Ranked] = Field(columns.BEATS, lambda s: _chance(_beats(s)), _rating_data)
MISSING: Field[Ranked] = Field(None, data=lambda s: {"missing": "; ".join(s.missing)})
