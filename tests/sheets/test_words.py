"""Numbers as words, at the edges of their units and where there is no number."""

from __future__ import annotations

import math

import pytest

from cab.scoring.intervals import Interval
from cab.sheets import words

UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.plus_minus(Interval(0.7123, 0.6983, 0.7263, 3)), "0.712 ± 0.014"),
        (words.plus_minus(Interval(0.7123, math.nan, math.nan, 1)), "0.712"),
        (words.plus_minus(UNKNOWN), "-"),
        (words.signed(0.1234), "+0.123"),
        (words.signed(math.nan), "-"),
        (words.signed(-0.5, 1), "-0.5"),
        (words.bounds(Interval(0.1, 0.01, 0.2, 3)), "+0.010 .. +0.200"),
        (words.bounds(UNKNOWN), "-"),
        (words.duration(1.5), "1.50 s"),
        (words.duration(0.0015), "1.50 ms"),
        (words.duration(1.5e-6), "1.50 µs"),
        (words.duration(1e-9), "0.00100 µs"),
        (words.byte_size(0), "0 B"),
        (words.byte_size(1023), "1023 B"),
        (words.byte_size(1536), "1.50 KiB"),
        (words.byte_size(2**40), "1024 GiB"),
        (words.times(1.254), "1.25x"),
        (words.times(math.nan), "-"),
        (words.percent(0.634), "63 %"),
        (words.amount(0.0, "s"), "0 s"),
        (words.amount(12345.6, "1"), "12,346"),
        (words.amount(1.25, "x"), "1.25x"),
        (words.amount(0.5, "J"), "0.500 J"),
        (words.amount(math.inf, "B"), "-"),
        (words.amount_range(Interval(2e-3, 1e-3, 3e-3, 3), "s"), "1.00 ms .. 3.00 ms"),
        (words.p_value(0.04999), "0.04999"),
        (words.p_value(0.05), "0.050"),
        (words.p_value(0.0501), "0.050"),
        (words.p_value(0.04), "0.040"),
        (words.p_value(0.0002), "< 0.001"),
        (words.p_value(math.nan), "-"),
        (words.count(1, "seed"), "1 seed"),
        (words.count(0, "seed"), "0 seeds"),
        (words.count(1200, "row"), "1,200 rows"),
    ],
)
def test_words(written: str, expected: str) -> None:
    assert written == expected


def test_machines_read_no_number_where_there_is_none() -> None:
    assert words.number(math.nan) is None
    assert words.number(math.inf) is None
    assert words.number(1) == 1.0
