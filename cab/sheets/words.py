"""Numbers as words: one way to write each kind, wherever a reader meets it."""

from __future__ import annotations

import math
from collections.abc import Iterable

from cab.scoring.intervals import LEVEL, Interval

NOTHING = "-"
"""Stands where there is no number"""
UNSURE = "not known"
"""Stands where an interval would say nothing"""

_ALPHA = round(1 - LEVEL, 9)
"""`cab.scoring.ranks.ALPHA` without its rounding error"""


def plus_minus(interval: Interval) -> str:
    """``0.712 ± 0.014``, or the bare mean where there is one replicate."""
    if not math.isfinite(interval.value):
        return NOTHING
    if not interval.known:
        return significant(interval.value)
    half = (interval.high - interval.low) / 2
    digits = 3 if half == 0 else min(6, max(0, 1 - math.floor(math.log10(half))))
    return f"{interval.value:.{digits}f} ± {half:.{digits}f}"


def significant(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent."""
    if value == 0 or not math.isfinite(value):
        return str(value)
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def signed(value: float, digits: int = 3) -> str:
    """``+0.123``, or a dash for what is not a number; what reads as zero is ``+0.000``."""
    if not math.isfinite(value):
        return NOTHING
    found = f"{value:+.{digits}f}"
    return found if float(found) else f"{0.0:+.{digits}f}"


def bounds(interval: Interval, digits: int = 3, between: str = "..") -> str:
    """``+0.010 .. +0.200``, or a dash where there is no interval."""
    if not interval.known:
        return NOTHING
    return f"{signed(interval.low, digits)} {between} {signed(interval.high, digits)}"


def digits_of(interval: Interval, least: int = 3, most: int = 9) -> int:
    """Digits behind the point at which an interval is seen for what it is: its width has two, and
    no end reads as zero that is none.
    """
    if not interval.known:
        return least
    half = (interval.high - interval.low) / 2
    digits = least if half == 0 else max(least, 1 - math.floor(math.log10(half)))
    ends = [end for end in (interval.low, interval.high) if end]
    while digits < most and any(round(end, digits) == 0 for end in ends):
        digits += 1
    return min(digits, most)


def duration(seconds: float) -> str:
    """Seconds in a unit that keeps the number between 1 and 1000."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1 or unit == "µs":
            return f"{significant(seconds * factor)} {unit}"
    raise AssertionError("unreachable")


def byte_size(count: float) -> str:
    """Bytes in a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{significant(count) if count else '0'} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def times(ratio: float) -> str:
    """``1.25x``, or a dash for what is not a number."""
    return f"{ratio:.2f}x" if math.isfinite(ratio) else NOTHING


def share(part: float) -> str:
    """``0.306`` of one, or a dash for what is not a number."""
    return significant(part) if math.isfinite(part) else NOTHING


def percent(share: float) -> str:
    """``63 %``."""
    return f"{100 * share:.0f} %"


def amount(value: float, unit: str) -> str:
    """A cost in a unit that keeps it short.

    Args:
        value: how much.
        unit: ``s``, ``B``, ``x`` (a ratio), ``1`` (a count), or another one, which is named.
    """
    if not math.isfinite(value):
        return NOTHING
    if unit == "s":
        return duration(value) if value > 0 else "0 s"
    if unit == "B":
        return byte_size(value)
    if unit == "x":
        return times(value)
    if unit == "1":
        return f"{value:,.0f}"
    return f"{significant(value)} {unit}"


def amount_range(interval: Interval, unit: str, between: str = "..") -> str:
    """Its interval, `UNSURE` where replicates are too far apart for one, or a dash."""
    if interval.unsure:
        return UNSURE
    if not interval.known:
        return NOTHING
    return f"{amount(interval.low, unit)} {between} {amount(interval.high, unit)}"


def factor_range(ratio: Interval, between: str = " .. ") -> str:
    """The interval of a ratio without its unit, `UNSURE`, or a dash."""
    if ratio.unsure:
        return UNSURE
    return f"{ratio.low:.2f}{between}{ratio.high:.2f}" if ratio.known else NOTHING


def unsure_notes(intervals: Iterable[Interval]) -> list[str]:
    """What `UNSURE` means, where it stands for one of these."""
    if not any(interval.unsure for interval in intervals):
        return []
    why = "others kept the machine busy, and processes are too far apart for an interval"
    return [f"{UNSURE}: {why}"]


def arrow(higher_is_better: bool) -> str:
    """The direction of a metric: where better lies."""
    return "↑" if higher_is_better else "↓"


def p_value(p: float) -> str:
    """Three digits, or as many as it takes to see on which side of 5 % it lies; small ones as a
    bound.
    """
    if not math.isfinite(p):
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    return next(
        text
        for text in (f"{p:.{digits}f}" for digits in range(3, 18))
        if (float(text) < _ALPHA) == (p < _ALPHA)
    )


def count(number: int, noun: str, several: str = "") -> str:
    """``1 seed``, ``3 seeds``, ``1,200 rows``; ``several`` where an s does not do."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def count_range(least: int, most: int) -> str:
    """``3``, or ``1-3`` where counts differ."""
    return str(least) if least == most else f"{least}-{most}"


def number(value: float) -> float | None:
    """For machines: None for what is not finite."""
    return float(value) if math.isfinite(value) else None
