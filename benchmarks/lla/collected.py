"""What the benchmarks have measured, until the summary prints it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Point:
    """All mechanisms at one length, in one phase."""

    length: int
    phase: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By mechanism, round for round."""
    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes, by mechanism."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a mechanism was not tried."""
    ideal_seconds: list[float] = field(default_factory=list)
    """Of the covariance's multiply-adds at the machine's rate of matrix products, by round."""
    gemm_rates: list[float] = field(default_factory=list)
    """FLOP/s, by round."""
    others_cores: float | None = None
    """Cores that other processes kept busy during the rounds."""


@dataclass
class Crossover:
    """Both solvers of the torch path on one head dim and ridge."""

    dim: int
    ridge: float
    seconds: dict[str, list[float]]
    """By solver, round for round."""
    products: float
    """Products with C_i that conjugate gradients took, mean over tiles."""
    residual: float
    """Largest relative residual that they left."""


@dataclass
class Decoding:
    """The one-pass decode step and the parallel form with one query."""

    dim: int
    length: int
    seconds: dict[str, list[float]]


@dataclass
class Collected:
    """Everything of one session."""

    points: list[Point] = field(default_factory=list)
    crossovers: list[Crossover] = field(default_factory=list)
    decodings: list[Decoding] = field(default_factory=list)
