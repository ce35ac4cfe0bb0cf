"""The index over all patterns: the mean of the patterns' indices, each counting alike.

An entry needs an index in every pattern that has tasks; mechanisms that have no honest form of a
pattern have no rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cab.label import label_words, labels_in
from cab.scoring.bradley_terry import Rating, ratings
from cab.scoring.intervals import NAN, UNKNOWN, Floats, combined
from cab.scoring.quality import QualityBoard, Ranked, Separation, separation
from cab.scoring.ranks import Pairs, all_pairs, rank_interval
from cab.scoring.task_scores import TaskScores


@dataclass(frozen=True, kw_only=True)
class OverallStanding(Ranked):
    """An entry's place over all patterns; what may be missing is patterns."""

    patterns: dict[str, float]
    """Index by pattern, where it has one"""


def overall(boards: Mapping[str, QualityBoard]) -> list[OverallStanding]:
    """Rank the entries over some patterns; patterns that rank nobody are left out."""
    used = {
        pattern: board
        for pattern, board in boards.items()
        if any(s.rank is not None for s in board.standings)
    }
    if not used:
        return []
    rated = ratings(merged({pattern: board.scores for pattern, board in used.items()}))
    origins: dict[str, str] = {}
    labels: dict[str, list[str]] = {}
    for board in used.values():
        for standing in board.standings:
            origins.setdefault(standing.entry, standing.attention)
            labels.setdefault(standing.entry, []).extend(labels_in(standing.label))
    found = [
        replace(
            _standing(used, entry, origins[entry], rated.get(entry)),
            label=label_words(labels[entry]),
        )
        for entry in sorted(origins)
    ]
    whole = sorted((s for s in found if not s.missing), key=lambda s: (-s.index.value, s.entry))
    rest = sorted((s for s in found if s.missing), key=lambda s: (len(s.missing), s.entry))
    pairs = all_pairs([board.scores for board in used.values()], [s.entry for s in whole])
    return [_placed(whole, place, pairs) for place in range(len(whole))] + rest


def _standing(
    boards: Mapping[str, QualityBoard], entry: str, attention: str, rating: Rating | None
) -> OverallStanding:
    indices = {}
    for pattern, board in boards.items():
        if any(s.entry == entry and s.rank is not None for s in board.standings):
            indices[pattern] = board.scores
    missing = tuple(pattern for pattern in boards if pattern not in indices)
    general = combined([scores.general(entry) for scores in indices.values()])
    here = combined([scores.here(entry) for scores in indices.values()])
    return OverallStanding(
        entry=entry,
        attention=attention,
        index=UNKNOWN if missing else general.interval(),
        here=UNKNOWN if missing else here.interval(),
        patterns={pattern: scores.here(entry).value for pattern, scores in indices.items()},
        missing=missing,
        rating=rating,
    )


def _placed(whole: list[OverallStanding], place: int, pairs: Pairs) -> OverallStanding:
    standing = whole[place]
    return replace(
        standing,
        rank=place + 1,
        ranks=rank_interval(pairs, standing.entry) if pairs.known(standing.entry) else None,
        separation=separation(pairs, standing.entry, whole[place - 1].entry)
        if place
        else Separation.GENERAL,
    )


def merged(scores: Mapping[str, TaskScores]) -> TaskScores:
    """The tasks of several patterns as one table, named ``pattern/task``."""
    entries = tuple(sorted({entry for part in scores.values() for entry in part.entries}))
    seeds: dict[str, tuple[int, ...]] = {}
    values: dict[str, Floats] = {}
    for pattern, part in scores.items():
        rows = [entries.index(entry) for entry in part.entries]
        for task in part.tasks:
            name = f"{pattern}/{task}"
            grid = np.full((len(entries), part.values[task].shape[1]), NAN)
            grid[rows] = part.values[task]
            seeds[name], values[name] = part.seeds[task], grid
    return TaskScores(entries, tuple(values), seeds, values)
