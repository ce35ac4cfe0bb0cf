"""What papers claim of real tasks, as comparisons that boards confirm, contradict or leave open.

Entries are compared as on a leaderboard: by the difference of their indices, paired by task and by
the seeds that both have. What holds for other tasks of this kind (the interval over tasks) is a
stronger verdict than what holds on these tasks (the interval over seeds).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from expectations import Judgement, Verdict

from cab.patterns import Pattern
from cab.scoring.boards import board
from cab.scoring.correlation import rank_correlation
from cab.scoring.intervals import UNKNOWN, Estimate, Interval
from cab.scoring.published import load_published, published_board
from cab.scoring.quality import QualityBoard
from cab.scoring.ranks import Differences, rank_interval
from cab.scoring.results import Results
from cab.sheets.words import bounds, count, signed
from cab.track import Track

PUBLISHED = {
    "vanilla": "softmax",
    "ABC": "abc",
    "cosFormer": "cosformer",
    "LARA": "lara",
    "LongShort": "long-short",
    "Nyströmformer": "nystromformer",
    "Performer": "performer",
    "ProbSparse": "prob-sparse",
    "S4D": "s4d",
    "local": "local",
}
"""Ids of the mechanisms that CAB measures and that are ranked here"""


class Boards:
    """The boards of scale small on a CPU, by pattern."""

    def __init__(self, results: Results) -> None:
        self._results = results

    @cached_property
    def by_pattern(self) -> Mapping[Pattern, QualityBoard]:
        """All four."""
        return {p: board(self._results, Track(p.value, "small", "cpu")) for p in Pattern}

    def index(self, pattern: Pattern) -> dict[str, float]:
        """Of entries that have one."""
        standings = self.by_pattern[pattern].standings
        return {s.entry: s.index.value for s in standings if s.rank is not None}

    def difference(self, pattern: Pattern, one: str, other: str) -> tuple[Interval, Interval]:
        """Index of one over that of other: on tasks of this kind, and on these tasks."""
        pairs = self.by_pattern[pattern].pairs
        if pairs is None or not {one, other} <= set(pairs.entries):
            return UNKNOWN, UNKNOWN
        place = pairs.index(one), pairs.index(other)

        def of(differences: Differences) -> Interval:
            mean, variance, freedom = (
                float(part[place])
                for part in (differences.mean, differences.variance, differences.freedom)
            )
            return Estimate(mean, variance, freedom, 1).interval()

        return of(pairs.general), of(pairs.here)


class BoardExpectation(Protocol):
    """One claim."""

    def judge(self, boards: Boards) -> Judgement:
        """The verdict of these boards."""
        ...


@dataclass(frozen=True)
class Ahead:
    """``one`` has a better index than ``other``, by more than ``by``."""

    one: str
    other: str
    pattern: Pattern
    by: float = 0.0

    def judge(self, boards: Boards) -> Judgement:
        """By the paired difference."""
        general, here = boards.difference(self.pattern, self.one, self.other)
        more = f" by {self.by:g}" if self.by else ""
        claim = f"{self.pattern.abbreviation}: `{self.one}` is ahead of `{self.other}`{more}"
        verdict = _verdict(general, here, self.by, math.inf)
        return Judgement(claim, difference_words(general, here), verdict)


@dataclass(frozen=True)
class Near:
    """The index of ``one`` is within a margin of that of ``other``."""

    one: str
    other: str
    pattern: Pattern
    margin: float = 0.05

    def judge(self, boards: Boards) -> Judgement:
        """Holds where a whole interval lies within the margin, fails where it lies outside."""
        general, here = boards.difference(self.pattern, self.one, self.other)
        claim = (
            f"{self.pattern.abbreviation}: `{self.one}` is within {self.margin:g} of `{self.other}`"
        )
        verdict = _verdict(general, here, -self.margin, self.margin)
        return Judgement(claim, difference_words(general, here), verdict)


@dataclass(frozen=True)
class Leads:
    """No mechanism is ahead of ``entry``, and it is ahead of all."""

    entry: str
    pattern: Pattern

    def judge(self, boards: Boards) -> Judgement:
        """By the interval of its rank."""
        found = boards.by_pattern[self.pattern]
        claim = f"{self.pattern.abbreviation}: `{self.entry}` leads"
        standing = next((s for s in found.standings if s.entry == self.entry), None)
        if standing is None or standing.rank is None or found.pairs is None:
            return Judgement(claim, "", Verdict.UNKNOWN)
        spans = [rank_interval(found.pairs, self.entry, here=here) for here in (False, True)]
        (low, high), (low_here, high_here) = spans
        verdict = Verdict.OPEN
        if low_here > 1:
            verdict = Verdict.FAILS if low > 1 else Verdict.FAILS_HERE
        elif high_here == 1:
            verdict = Verdict.HOLDS if high == 1 else Verdict.HOLDS_HERE
        evidence = (
            f"rank {standing.rank} of {len(found.pairs.entries)} ({low} to {high} in general, "
            f"{low_here} to {high_here} on these tasks)"
        )
        return Judgement(claim, evidence, verdict)


@dataclass(frozen=True)
class Carries:
    """A ranking in one pattern carries over to another."""

    first: Pattern
    second: Pattern

    def judge(self, boards: Boards) -> Judgement:
        """By Spearman's rho over the mechanisms that both rank."""
        claim = (
            f"the ranking in {self.first.abbreviation} carries over to {self.second.abbreviation}"
        )
        return _correlated(claim, boards.index(self.first), boards.index(self.second))


@dataclass(frozen=True)
class AsPublished:
    """CAB's own order of a pattern is found again."""

    pattern: Pattern

    def judge(self, boards: Boards) -> Judgement:
        """By Spearman's rho with the averages recomputed from CAB's numbers."""
        published = published_board(load_published("cab2023"), self.pattern.value)
        theirs = {PUBLISHED[s.attention]: s.average for s in published if s.attention in PUBLISHED}
        claim = f"{self.pattern.abbreviation}: the order is CAB's"
        return _correlated(claim, theirs, boards.index(self.pattern))


def _verdict(general: Interval, here: Interval, least: float, most: float) -> Verdict:
    """Whether a difference lies between two bounds: in general, where that is decided, else on
    these tasks.
    """
    for interval, holds, fails in (
        (general, Verdict.HOLDS, Verdict.FAILS),
        (here, Verdict.HOLDS_HERE, Verdict.FAILS_HERE),
    ):
        if interval.known and least < interval.low and interval.high < most:
            return holds
        if interval.known and (interval.low > most or interval.high < least):
            return fails
    return Verdict.OPEN if general.known or here.known else Verdict.UNKNOWN


def _correlated(claim: str, first: Mapping[str, float], second: Mapping[str, float]) -> Judgement:
    """Of the mechanisms in both, less the controls that are none."""
    columns = [{e: v for e, v in c.items() if e not in CONTROLS} for c in (first, second)]
    rho = rank_correlation(*columns)
    if not rho.known:
        return Judgement(claim, f"{count(rho.n, 'mechanism')} in both", Verdict.UNKNOWN)
    evidence = f"Spearman's ρ {signed(rho.value, 2)} ({bounds(rho, 2, 'to')}, n = {rho.n})"
    verdict = Verdict.HOLDS if rho.low > 0 else Verdict.FAILS if rho.high < 0 else Verdict.OPEN
    return Judgement(claim, evidence, verdict)


CONTROLS = ("none", "softmax-exact")
"""They would make any two columns agree"""


def difference_words(general: Interval, here: Interval) -> str:
    """``+0.069 (+0.038 to +0.100 on these tasks, -0.016 to +0.154 in general)``."""
    if not (general.known or here.known):
        return ""
    spans = [
        f"{bounds(interval, 3, 'to')} {where}"
        for interval, where in ((here, "on these tasks"), (general, "in general"))
        if interval.known
    ]
    return f"{signed(general.value)} ({', '.join(spans)})"
