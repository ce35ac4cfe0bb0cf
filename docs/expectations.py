"""What papers claim, as comparisons that measured results confirm, contradict or leave open.

Comparisons are paired by training seed; a verdict needs a 95 % interval (Student's t over seeds)
that lies wholly on one side. An entry whose name begins with ``@`` is a reference of the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cab.scoring.intervals import Interval, mean_interval
from cab.scoring.reference_lines import MARK
from cab.sheets.words import plus_minus

Values = NDArray[np.float64]


class Verdict(StrEnum):
    """What results say of a claim."""

    HOLDS = "holds"
    HOLDS_HERE = "holds on these tasks; others may differ"
    FAILS = "does not hold"
    FAILS_HERE = "does not hold on these tasks; others may differ"
    OPEN = "open: the interval decides nothing"
    UNKNOWN = "not measured"


@dataclass(frozen=True)
class Judgement:
    """A claim in words, the interval that decides it, and the verdict."""

    claim: str
    evidence: str
    verdict: Verdict


class Scores:
    """Test scores and references of one task on one pattern."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._rows = rows

    def of(self, entry: str, metric: str) -> pd.Series:
        """Values by seed."""
        if entry.startswith(MARK):
            own = self._rows[self._rows["metric"] == metric + entry].drop_duplicates("seed")
        else:
            own = self._rows[(self._rows["entry"] == entry) & (self._rows["metric"] == metric)]
        return own.set_index("seed")["value"].astype(float).sort_index()

    def has(self, metric: str) -> bool:
        """Whether any entry has values of a metric."""
        return bool((self._rows["metric"] == metric).any())

    def higher(self, metric: str) -> bool:
        """Whether more of a metric is better."""
        own = self._rows[self._rows["metric"] == metric]
        if own.empty:
            raise ValueError(f"results/reference has no {metric} of this task: measure it first")
        return bool(own["higher_is_better"].iloc[0])

    def seconds(self, entry: str) -> float:
        """Median time of training."""
        own = self._rows[(self._rows["entry"] == entry) & (self._rows["metric"] == "train_time")]
        return float(own["value"].median())


class Expectation(Protocol):
    """One claim."""

    def judge(self, scores: Scores) -> Judgement:
        """The verdict of these scores."""
        ...


def _gains(scores: Scores, one: str, other: str, metric: str) -> Values:
    """By how much one is better than other, by seed."""
    pairs = pd.concat([scores.of(one, metric), scores.of(other, metric)], axis=1).dropna()
    gains = (pairs.iloc[:, 0] - pairs.iloc[:, 1]).to_numpy(float)
    return gains if len(gains) == 0 or scores.higher(metric) else -gains


def _verdict(interval: Interval) -> Verdict:
    if not interval.known:
        return Verdict.UNKNOWN
    if interval.low > 0:
        return Verdict.HOLDS
    return Verdict.FAILS if interval.high < 0 else Verdict.OPEN


def _signed(interval: Interval) -> str:
    words = plus_minus(interval)
    return words if words.startswith("-") else f"+{words}"


def _gain(interval: Interval) -> str:
    words = plus_minus(interval)
    return f"worse by {words[1:]}" if words.startswith("-") else f"better by {words}"


@dataclass(frozen=True)
class Better:
    """``one`` scores better than ``other``."""

    one: str
    other: str
    metric: str

    def judge(self, scores: Scores) -> Judgement:
        """By the paired difference."""
        interval = mean_interval(_gains(scores, self.one, self.other, self.metric))
        claim = f"{_name(self.one)} is better than {_name(self.other)} on {self.metric}"
        return Judgement(claim, _gain(interval), _verdict(interval))


@dataclass(frozen=True)
class Reaches:
    """``entry`` scores at least as well as a bound."""

    entry: str
    metric: str
    bound: float

    def judge(self, scores: Scores) -> Judgement:
        """By the distance from the bound."""
        values = scores.of(self.entry, self.metric)
        claim = f"{_name(self.entry)} reaches {self.metric} {self.bound:g}"
        if values.empty:
            return Judgement(claim, "", Verdict.UNKNOWN)
        sign = 1 if scores.higher(self.metric) else -1
        gap = mean_interval(sign * (values.to_numpy(float) - self.bound))
        found = mean_interval(values.to_numpy(float))
        return Judgement(claim, f"{self.metric} {plus_minus(found)}", _verdict(gap))


@dataclass(frozen=True)
class Within:
    """``one`` and ``other`` differ by no more than a margin."""

    one: str
    other: str
    metric: str
    margin: float

    def judge(self, scores: Scores) -> Judgement:
        """Holds where the whole interval lies within the margin, fails where it lies outside."""
        interval = mean_interval(_gains(scores, self.one, self.other, self.metric))
        claim = (
            f"{_name(self.one)} and {_name(self.other)} are within {self.margin:g} of each other "
            f"on {self.metric}"
        )
        verdict = Verdict.OPEN
        if not interval.known:
            verdict = Verdict.UNKNOWN
        elif max(abs(interval.low), abs(interval.high)) <= self.margin:
            verdict = Verdict.HOLDS
        elif interval.low > self.margin or interval.high < -self.margin:
            verdict = Verdict.FAILS
        return Judgement(claim, f"difference {_signed(interval)}", verdict)


@dataclass(frozen=True)
class Improves:
    """``entry`` scores better on ``after`` than on ``before``."""

    entry: str
    before: str
    after: str

    def judge(self, scores: Scores) -> Judgement:
        """By the paired difference of the two metrics."""
        pairs = pd.concat([scores.of(self.entry, m) for m in (self.before, self.after)], axis=1)
        gains = (pairs.iloc[:, 1] - pairs.iloc[:, 0]).dropna().to_numpy(float)
        sign = 1 if len(gains) == 0 or scores.higher(self.before) else -1
        interval = mean_interval(sign * gains)
        claim = f"{_name(self.entry)} is better on {self.after} than on {self.before}"
        return Judgement(claim, _gain(interval), _verdict(interval))


@dataclass(frozen=True)
class LosesMore:
    """From an easy metric to a hard one, ``one`` loses more than ``other``."""

    one: str
    other: str
    easy: str
    hard: str

    def judge(self, scores: Scores) -> Judgement:
        """By the paired difference of the losses."""
        losses = [
            (scores.of(entry, self.easy) - scores.of(entry, self.hard))
            * (1 if not scores.of(entry, self.easy).empty and scores.higher(self.easy) else -1)
            for entry in (self.one, self.other)
        ]
        interval = mean_interval((losses[0] - losses[1]).dropna().to_numpy(float))
        claim = (
            f"from {self.easy} to {self.hard}, {_name(self.one)} loses more than "
            f"{_name(self.other)}"
        )
        return Judgement(claim, f"more by {_signed(interval)}", _verdict(interval))


@dataclass(frozen=True)
class RatioGrows:
    """How many times better ``one`` is than ``other`` grows from one metric to another."""

    one: str
    other: str
    first: str
    last: str

    def judge(self, scores: Scores) -> Judgement:
        """By the paired difference of the log-ratios of two errors."""
        ratios = [
            np.log(scores.of(self.other, m)) - np.log(scores.of(self.one, m))
            for m in (self.first, self.last)
        ]
        growth = mean_interval((ratios[1] - ratios[0]).dropna().to_numpy(float))
        factors = " to ".join(f"{np.exp(r.mean()):.3g}x" for r in ratios)
        claim = (
            f"the advantage of {_name(self.one)} over {_name(self.other)} grows from {self.first} "
            f"to {self.last}"
        )
        return Judgement(claim, f"{factors}; log-ratio {_signed(growth)}", _verdict(growth))


def _name(entry: str) -> str:
    return entry.removeprefix(MARK) if entry.startswith(MARK) else f"`{entry}`"
