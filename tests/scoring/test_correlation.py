"""Rank correlations: their value, their interval, and when there is none."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from cab.scoring.correlation import correlations, rank_correlation, without


def columns(x, y):
    names = [f"e{n}" for n in range(len(x))]
    return dict(zip(names, x, strict=True)), dict(zip(names, y, strict=True))


@pytest.mark.parametrize("n", [5, 8, 20])
def test_value_is_spearmans(n):
    generator = np.random.default_rng(n)
    x, y = generator.normal(size=(2, n))
    y[1] = y[0]
    assert rank_correlation(*columns(x, y)).value == pytest.approx(spearmanr(x, y).statistic)


def test_interval_covers():
    generator = np.random.default_rng(0)
    r, hits = 0.7, []
    truth = 6 / math.pi * math.asin(r / 2)
    for _ in range(2000):
        x, e = generator.normal(size=(2, 12))
        found = rank_correlation(*columns(x, r * x + math.sqrt(1 - r * r) * e))
        hits.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_refused_below_five():
    found = rank_correlation(*columns([1, 2, 3, 4], [1, 2, 3, 4]))
    assert found.n == 4
    assert math.isnan(found.value)
    assert correlations({"a": {"x": 1.0}, "b": {"x": 2.0}})[0].refused


def test_only_shared_and_finite_entries_count():
    a = {f"e{n}": float(n) for n in range(8)}
    b = {f"e{n}": float(n) for n in range(3, 10)} | {"e4": math.nan}
    assert rank_correlation(a, b).n == 4


def test_refused_for_a_constant():
    assert math.isnan(rank_correlation(*columns([1] * 6, range(6))).value)


def test_perfect_agreement_still_has_an_interval():
    found = rank_correlation(*columns(range(6), range(6)))
    assert found.value == pytest.approx(1.0)
    assert 0 < found.low < found.high <= 1.0


def test_controls_can_be_left_out():
    assert without({"a": {"none": 1.0, "x": 2.0}}, {"none"}) == {"a": {"x": 2.0}}
