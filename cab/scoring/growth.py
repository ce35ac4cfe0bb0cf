"""How a cost grows with the length: the exponent that was measured beside the one that is claimed.

The exponent is the slope of the logarithm of the cost over that of the length. Short lengths are
left out: there a cost is mostly that of calling at all, and any mechanism looks linear or better.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from cab.scoring.intervals import LEVEL, Interval

_LONGEST = 4
"""Lengths that the slope is taken over: three doublings, where lengths double"""
_WIDE = 1.0
"""An interval that is wider decides nothing."""
_SLACK = 0.1
"""Exponents that differ by less are not told apart: logarithms and caches bend a line as much."""


@dataclass(frozen=True)
class PowerLaw:
    """``cost = factor · length ** exponent`` over the longest lengths."""

    exponent: Interval
    factor: float
    lengths: tuple[int, ...]
    """That the line was fitted to"""

    def at(self, length: float) -> float:
        """The line's cost."""
        return self.factor * length**self.exponent.value


def power_law(costs: Mapping[int, Sequence[float]], longest: int = _LONGEST) -> PowerLaw | None:
    """Fit a line to the logarithms.

    The interval is Student's, of the slopes of the processes where there are at least two; where
    there is one cost for every length, of the residuals from the line.

    Args:
        costs: by length, one cost for each process (or one cost).
        longest: how many of the longest lengths are used.

    Returns:
        None where fewer than two lengths have a cost above zero.
    """
    kept = {n: list(c) for n, c in sorted(costs.items()) if c and min(c) > 0}
    lengths = tuple(kept)[-longest:]
    if len(lengths) < 2:
        return None
    x = np.log(np.array(lengths, dtype=float))
    counts = {len(kept[n]) for n in lengths}
    processes = counts.pop() if len(counts) == 1 else 1
    middle = np.log([float(np.median(kept[n])) for n in lengths])
    slope, offset = np.polyfit(x, middle, 1)
    if processes > 1:
        slopes = [
            np.polyfit(x, np.log([kept[n][i] for n in lengths]), 1)[0] for i in range(processes)
        ]
        error = float(np.std(slopes, ddof=1)) / math.sqrt(processes)
        freedom, n = processes - 1, processes
    else:
        freedom, n = len(lengths) - 2, 1
        residuals = middle - (slope * x + offset)
        spread = float(((x - x.mean()) ** 2).sum())
        error = math.sqrt(float((residuals**2).sum()) / freedom / spread) if freedom else math.nan
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error if freedom else math.nan
    value = float(slope)
    return PowerLaw(
        Interval(value, value - half, value + half, n), math.exp(float(offset)), lengths
    )


def claimed_exponent(term: str, causal: bool) -> float | None:
    """Power of L in the leading term that an info record states: ``L ln L D`` has 1.

    A record may state another term for causal patterns: ``L w; causal L (w + L / c)``.

    Returns:
        None where the record states nothing that can be read.
    """
    clauses = [clause.strip() for clause in term.split(";")]
    chosen = clauses[0]
    for clause in clauses[1:]:
        if causal and clause.startswith("causal "):
            chosen = clause.removeprefix("causal ")
    tokens = re.findall(r"\d+(?:\.\d+)?|[A-Za-z_]+|[()+\-/^*]", chosen)
    if "".join(tokens) != re.sub(r"\s", "", chosen):
        return None
    if chosen == "not stated":
        return None
    try:
        degree, rest = _sum(tokens)
    except (IndexError, ValueError):
        return None
    return degree if not rest else None


def verdict(measured: Interval, claimed: float | None) -> str:
    """``as claimed``, ``above the claim``, ``below the claim so far``, or why nothing is said."""
    if claimed is None:
        return "no claim"
    if not math.isfinite(measured.value):
        return "not measured"
    low = measured.low if measured.known else measured.value
    high = measured.high if measured.known else measured.value
    if high - low > _WIDE:
        return "too uncertain"
    if low > claimed + _SLACK:
        return "above the claim"
    if high < claimed - _SLACK:
        # Costs that do not grow as fast, of calling at all, still weigh at these lengths.
        return "below the claim so far"
    return "as claimed"


def _sum(tokens: list[str]) -> tuple[float, list[str]]:
    degree, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        other, tokens = _product(tokens[1:])
        degree = max(degree, other)
    return degree, tokens


def _product(tokens: list[str]) -> tuple[float, list[str]]:
    degree, tokens = _power(tokens)
    while tokens and tokens[0] not in "+-)":
        sign = -1 if tokens[0] == "/" else 1
        other, tokens = _power(tokens[1:] if tokens[0] in "/*" else tokens)
        degree += sign * other
    return degree, tokens


def _power(tokens: list[str]) -> tuple[float, list[str]]:
    head, tokens = tokens[0], tokens[1:]
    if head == "(":
        degree, tokens = _sum(tokens)
        if tokens[0] != ")":
            raise ValueError("a bracket is not closed")
        tokens = tokens[1:]
    elif head in ("ln", "log"):
        # Slower than any power.
        _, tokens = _power(tokens)
        degree = 0.0
    elif head[0].isalnum():
        degree = 1.0 if head == "L" else 0.0
    else:
        raise ValueError(f"{head!r} starts no factor")
    if tokens and tokens[0] == "^":
        return degree * float(tokens[1]), tokens[2:]
    return degree, tokens
