"""Info records: what the registries know of an entry without importing it (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cab.patterns import Pattern

OptionValue = bool | int | float | str


class Grade(StrEnum):
    """How close an entry's form for a pattern is to what its authors published."""

    FAITHFUL = "faithful"
    """As published."""
    EXTENSION = "extension"
    """The published formula applied unchanged to a pattern that its authors did not report."""
    ADAPTED = "adapted"
    """The mechanism had to change; the class docstring says how."""


class Kind(StrEnum):
    """What an entry is."""

    ATTENTION = "attention"
    MIXER = "mixer"
    """A token mixer that is not attention (a state-space layer, say)."""
    MODIFIER = "modifier"
    """A change of the softmax map that is made after training."""
    CONTROL = "control"
    """A reference point that every leaderboard carries."""


class Family(StrEnum):
    """The idea that an attention is built on: what lists are grouped and filtered by.

    One word an entry, the one that names where its outputs come from. What combines two of them in
    one layer is hybrid; what keeps an idea and adds positions, gates or heads to it stays with the
    idea.
    """

    SOFTMAX = "softmax"
    """A normalised weight for every visible key: softmax, and other normalisers of all scores."""
    LINEAR = "linear"
    """A kernel of feature maps in place of the exponential, so that sums over keys come first."""
    RECURRENT = "recurrent"
    """A state that every token writes to and decays or corrects: gates, retention, delta rules."""
    STATE_SPACE = "state-space"
    """A discretised linear system, with fixed or input-dependent parameters."""
    CONVOLUTIONAL = "convolutional"
    """Weights that depend on places or distances alone: long filters, Fourier and learned maps."""
    SPARSE = "sparse"
    """Exact scores for keys or queries that are selected by their content: routing, hashing."""
    WINDOWED = "windowed"
    """Exact scores for keys that are selected by their place: windows, strides, blocks."""
    LOW_RANK = "low-rank"
    """Fewer rows than keys stand in for them: landmarks, slots, projections of the sequence."""
    REGRESSION = "regression"
    """The value of a local fit at the query: linear, ridge or polynomial regression on keys."""
    HYBRID = "hybrid"
    """Several of these ideas side by side in one layer, or in the layers of one stack."""
    POSITIONAL = "positional"
    """A way to tell positions apart: biases, rotations, decays over distance on softmax."""
    MODIFIER = "modifier"
    """A change of another map that is made after training."""
    CONTROL = "control"
    """Nothing of the sequence is read: what the rest of a model reaches without attention."""
    OTHER = "other"
    """Not said, or none of these."""


class Scale(StrEnum):
    """Size of a run. Scales are separate tracks and never share a table."""

    TINY = "tiny"
    """Tests: seconds a cell on two CPU cores."""
    SMALL = "small"
    """Default on a CPU: about half a minute a cell with softmax on two cores."""
    BASE = "base"
    """Default on one data-centre GPU: minutes a cell."""
    PAPER = "paper"
    """The sizes and data that CAB published."""


@dataclass(frozen=True)
class Option:
    """One constructor option of an attention, with the default and what it does."""

    name: str
    default: OptionValue
    help: str
    choices: tuple[str, ...] = ()
    """The words that it takes; empty: any value of the default's type."""
    positive: bool = False
    """Whether a number must be above zero."""
    least: float | None = None
    """The smallest number that it takes."""
    most: int = 1 << 20
    """The largest whole number that it takes; as it is, far beyond any window, rank or number of
    features in use. More where a large number costs nothing."""


@dataclass(frozen=True, kw_only=True)
class AttentionInfo:
    """Everything the suite says about an attention without running it.

    ``patterns`` holds a grade for every pattern the entry claims; the contract tests run on
    exactly these. ``absent`` may say why another pattern has no honest form.
    """

    id: str
    """Kebab-case, unique in the registry."""
    title: str
    formula: str
    """One line, per query row i."""
    patterns: Mapping[Pattern, Grade]
    time: str
    """Leading term of the arithmetic, e.g. ``L^2 D``."""
    memory: str
    """Leading term of the memory besides inputs and outputs."""
    paper: str = ""
    """Authors and title."""
    year: int | None = None
    url: str = ""
    kind: Kind = Kind.ATTENTION
    family: Family = Family.OTHER
    """The idea that it is built on"""
    options: tuple[Option, ...] = ()
    presets: Mapping[str, Mapping[str, OptionValue]] = field(default_factory=dict)
    """Settings that have a name: ``cab`` are those that CAB measured with."""
    absent: Mapping[Pattern, str] = field(default_factory=dict)

    def grade(self, pattern: Pattern) -> Grade | None:
        """The grade for a pattern, or None where the entry does not claim it."""
        return self.patterns.get(pattern)

    def defaults(self) -> dict[str, OptionValue]:
        """Option names with their default values."""
        return {option.name: option.default for option in self.options}


@dataclass(frozen=True)
class Metric:
    """One number that a task reports."""

    name: str
    unit: str
    higher_is_better: bool
    help: str
    headline: bool = True
    """Whether it enters the headline index; the others are reported beside it."""


@dataclass(frozen=True)
class Reference:
    """A value of a metric to read scores against: the best possible one, or that of a predictor
    in closed form. `cab.task_contract.Task.references` computes it.
    """

    name: str
    """Kebab-case"""
    metric: str
    """The declared metric that it is a value of"""
    help: str


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """Everything the suite says about a task without running it."""

    id: str
    title: str
    description: str
    backbones: Mapping[Pattern, str]
    """The backbone that carries each pattern's slots; its keys are the task's patterns."""
    metrics: tuple[Metric, ...]
    scales: tuple[Scale, ...]
    dataset: str
    """Embedded data set (an id of ``tasks/data/manifest.json``), or ``generated``."""
    data_dir: str = ""
    """Layout that ``--data-dir`` expects for the original data; empty: none is read."""
    differences: str = ""
    """In what it differs from CAB's task of that kind, and why."""
    paper: str = ""
    url: str = ""
    probe: bool = False
    """Whether it isolates one ability on a problem with a known ceiling. Probes explain the scores
    of the other tasks; they are run and ranked on their own and do not enter the headline index"""
    retired: Mapping[Pattern, str] = field(default_factory=dict)
    """Patterns on which it does not tell attention from none: why, with the numbers that show it.
    Such a pair is measured and ranked where the task is named, and not by default"""
    references: tuple[Reference, ...] = ()
    """What scores are read against"""
    fresh_evaluation: bool = False
    """Whether every seed is tested on problems of its own, which widens what the seeds cover: for
    generated problems of which one evaluation shows few. Otherwise all seeds see the same"""

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns that the task has slots for."""
        return tuple(self.backbones)

    def metric(self, name: str) -> Metric:
        """The declared metric of that name.

        Raises:
            KeyError: the task declares no such metric.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"task {self.id} declares no metric {name!r}")
