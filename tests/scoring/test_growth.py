"""Exponents: fitted to costs of known growth, read from claims, compared."""

import math
import random

import pytest

import cab
from cab.scoring.curves import of_a_repeat
from cab.scoring.growth import claimed_exponent, power_law, verdict
from cab.scoring.intervals import Interval, process_interval

LENGTHS = [256 * 2**i for i in range(6)]


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0])
def test_a_power_law_is_found_exactly(exponent):
    law = power_law({n: [3.0 * n**exponent] for n in LENGTHS})
    assert law.exponent.value == pytest.approx(exponent)
    assert law.at(5000) == pytest.approx(3.0 * 5000**exponent)
    assert law.exponent.low == pytest.approx(exponent, abs=1e-6)


def test_short_lengths_where_calling_dominates_are_left_out():
    law = power_law({n: [1.0 + (n / 2048) ** 2 * 100] for n in LENGTHS})
    assert law.lengths == tuple(LENGTHS[-4:])
    assert law.exponent.value == pytest.approx(2, abs=0.03)


def test_the_interval_covers_the_exponent_as_often_as_it_says():
    noise, hits, trials = random.Random(0), 0, 300
    for _ in range(trials):
        shifts = [noise.gauss(0, 0.05) for _ in range(3)]
        costs = {n: [math.exp(s + noise.gauss(0, 0.03)) * n**1.7 for s in shifts] for n in LENGTHS}
        found = power_law(costs).exponent
        hits += found.low <= 1.7 <= found.high
    assert 0.9 < hits / trials < 0.99


def test_what_cannot_be_fitted():
    assert power_law({}) is None
    assert power_law({256: [1.0]}) is None
    assert power_law({256: [0.0], 512: [0.0]}) is None
    assert not power_law({256: [1.0], 512: [2.0]}).exponent.known


@pytest.mark.parametrize(
    ("term", "plain", "causal"),
    [
        ("L^2 D", 2, 2), ("L D^2", 1, 1), ("L ln L D", 1, 1), ("1", 0, 0), ("D^2", 0, 0),
        ("L (w + r) D; causal L (w + rank L / c) D", 1, 2), ("L^1.5 D", 1.5, 1.5),
        ("not stated", None, None), ("a few", 0, 0), ("L ?", None, None), ("L (D", None, None),
    ],
)  # fmt: skip
def test_claims_are_read(term, plain, causal):
    assert claimed_exponent(term, causal=False) == plain
    assert claimed_exponent(term, causal=True) == causal


def test_every_entrys_claims_can_be_read():
    for info in cab.attentions():
        for causal in (False, True):
            assert claimed_exponent(info.time, causal) in (1, 1.5, 2), info.id
            assert claimed_exponent(info.memory, causal) in (0, 1, 2), info.id


def test_a_repeat_lies_in_its_interval_as_often_as_it_says():
    noise, hits, trials = random.Random(1), 0, 400

    def sweep():
        return process_interval([[math.exp(noise.gauss(0, 0.1))] for _ in range(3)])

    for _ in range(trials):
        printed = of_a_repeat(sweep())
        hits += printed.low <= sweep().value <= printed.high
    assert 0.92 < hits / trials < 0.98


def test_verdicts():
    def interval(low, high):
        return Interval((low + high) / 2, low, high, 3)

    assert verdict(interval(1.95, 2.02), 2) == "as claimed"
    assert verdict(interval(1.5, 1.7), 1) == "above the claim"
    assert verdict(interval(1.2, 1.6), 2) == "below the claim so far"
    assert verdict(interval(0.2, 1.9), 1) == "too uncertain"
    assert verdict(interval(1.0, 1.1), None) == "no claim"
    assert verdict(Interval(math.nan, math.nan, math.nan, 0), 1) == "not measured"
