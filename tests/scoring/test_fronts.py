"""Costs, Pareto fronts, and the length from which a mechanism pays."""

import math

import numpy as np
import pandas as pd
import pytest

from cab.scoring.cost import AXES, Costs, costs
from cab.scoring.crossover import cab_efficiency_length, crossover, ratio_of
from cab.scoring.intervals import Interval, process_interval
from cab.scoring.pareto import (
    cost_draws,
    dominance,
    front,
    quality_draws,
    quality_per_cost,
)
from cab.scoring.quality import quality_board
from cab.scoring.results import Results, current
from cab.track import Track
from tests.scoring.test_invariance import HEADLINE, table

LATENCY = AXES[0]


def exact(value, n=3):
    return Interval(value, value, value, n)


def board(seed=0):
    return quality_board(current(table(seed), {}), Track("causal-self", "tiny", "cpu"), HEADLINE)


def test_without_noise_dominance_is_that_of_the_definition():
    generator = np.random.default_rng(0)
    quality, cost = generator.integers(0, 5, size=(2, 12)).astype(float)
    found = dominance(quality[:, None], cost[:, None])
    for i in range(12):
        rivals = [
            j
            for j in range(12)
            if quality[j] >= quality[i]
            and cost[j] <= cost[i]
            and (quality[j] > quality[i] or cost[j] < cost[i])
        ]
        assert found[i] == bool(rivals)


def test_a_tie_on_both_axes_dominates_nobody():
    assert dominance(np.ones((3, 1)), np.ones((3, 1))).tolist() == [0, 0, 0]


def test_draws_have_the_margins_of_the_intervals():
    found = board()
    names = [s.entry for s in found.standings if s.rank and s.entry != "softmax"]
    for name, drawn in zip(names, quality_draws(found, names, 200_000), strict=True):
        index = found.standing(name).index
        inside = np.mean((index.low <= drawn) & (drawn <= index.high))
        assert inside == pytest.approx(0.95, abs=0.003)
    cost = Interval(2.0, 2.0 / 1.5, 2.0 * 1.5, 3)
    drawn = cost_draws([cost], 200_000)[0]
    assert np.mean((cost.low <= drawn) & (drawn <= cost.high)) == pytest.approx(0.95, abs=0.003)


def test_what_is_worse_and_dearer_leaves_the_front():
    found = board()
    best, second = (s.entry for s in found.standings[:2])
    priced = Costs(LATENCY, 256, {best: exact(1.0), second: exact(2.0), "none": exact(0.1)}, {})
    points = {p.entry: p for p in front(found, priced)}
    assert points[best].on_front
    assert points["none"].on_front
    assert points[second].dominated > 0.5
    assert not points[second].on_front


def test_names_do_not_move_the_front():
    rows = table(1)
    prices = {"softmax": 1.0, "alpha": 0.5, "beta": 0.7, "gamma": 2.0, "none": 0.1}
    new = {"alpha": "zz", "beta": "aa", "gamma": "mm"}
    before = front(board(1), Costs(LATENCY, 1, {n: exact(p) for n, p in prices.items()}, {}))
    renamed = rows.assign(
        attention=rows["attention"].replace(new), cell=rows["cell"].map(hash).astype(str)
    )
    other = quality_board(current(renamed, {}), Track("causal-self", "tiny", "cpu"), HEADLINE)
    named = {new.get(n, n): exact(p) for n, p in prices.items()}
    after = front(other, Costs(LATENCY, 1, named, {}))
    assert [p.dominated for p in after] == [p.dominated for p in before]


def test_quality_per_cost_by_hand():
    assert quality_per_cost(0.3, 8.0) == pytest.approx(0.1)
    assert quality_per_cost(-0.2, 0.25) == pytest.approx(-0.1)
    assert math.isnan(quality_per_cost(0.3, 1.0))
    assert math.isnan(quality_per_cost(0.3, math.nan))


def cost_rows():
    rows = []
    for entry, exponent in (("softmax", 2.0), ("linear", 1.0)):
        for process in range(3):
            for length in (256, 512, 1024):
                value = 1e-4 * (length / 256) ** exponent * (1 + 0.01 * process)
                rows.append((entry, process, length, "ok", "latency", value))
        rows.append((entry, 0, 2048, "ok" if entry == "softmax" else "oom", "latency", 1.0))
    columns = ["entry", "seed", "length_q", "status", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(
        kind="efficiency", pattern="causal-self", scale="tiny", device="cpu", phase="forward",
        samples=[[v] for v in frame["value"]], attention=frame["entry"], grade="faithful",
    )  # fmt: skip


def test_costs_are_of_the_longest_length_of_softmax():
    found = costs(Results(cost_rows(), 0), Track("causal-self", "tiny", "cpu"), LATENCY)
    assert found.length == 2048
    assert list(found.by_entry) == ["softmax"]
    assert found.ended == {"linear": "oom"}


def test_crossover_of_power_laws_is_exact():
    # Costs 3 L and L^2 / 100 meet at 300.
    ratios = {length: exact(3 * length / (length**2 / 100)) for length in (64, 128, 256, 512)}
    found = crossover(ratios, "softmax")
    assert found.length == pytest.approx(300)
    assert (found.low, found.high) == pytest.approx((300, 300))
    assert found.words() == "from 300 (300 to 300)"


def test_crossover_may_not_be_reached_or_lie_below():
    dear = {length: exact(1.5) for length in (256, 512)}
    assert not crossover(dear, "softmax").reached
    assert crossover(dear, "softmax").words() == "not up to 512"
    cheap = {length: exact(0.5) for length in (256, 512)}
    assert crossover(cheap, "softmax").words() == "at all lengths from 256"
    assert crossover({}, "softmax") is None


def test_equal_costs_do_not_pay():
    same = {n: process_interval([[3.3 * n]] * 3) for n in (256, 512, 1024)}
    found = crossover({n: ratio_of(cost, cost) for n, cost in same.items()}, "softmax")
    assert not found.reached
    assert found.low == math.inf


def test_crossover_counts_from_the_last_dearer_length():
    # Cheaper at 256 by luck of the launch, dearer at 512, cheaper from then on.
    ratios = {256: exact(0.9), 512: exact(2.0), 1024: exact(0.5)}
    assert crossover(ratios, "softmax").length == pytest.approx(512 * 2**0.5)


def test_crossover_interval_is_that_of_the_ratios():
    ratios = {
        256: Interval(2.0, 1.6, 2.5, 3),
        512: Interval(1.0, 0.8, 1.25, 3),
        1024: Interval(0.5, 0.4, 0.625, 3),
    }
    found = crossover(ratios, "softmax")
    assert found.length == pytest.approx(512)
    assert found.low == pytest.approx(512 * 2 ** (math.log(0.8) / math.log(2)))
    assert found.high == pytest.approx(512 * 2 ** (math.log(1.25) / math.log(2)))


def test_ratio_of_costs_has_the_interval_of_a_difference_of_logarithms():
    one, other = Interval(2.0, 2.0 / 1.2, 2.4, 3), Interval(4.0, 4.0, 4.0, 3)
    found = ratio_of(one, other)
    assert found.value == 0.5
    # The other is certain: the ratio is as uncertain as the one.
    assert found.high == pytest.approx(0.6)
    assert found.low == pytest.approx(0.5 / 1.2)


def test_cabs_efficiency_lengths_follow_from_its_costs():
    lengths = (256, 512, 1024, 2048, 4096, 8192)
    time = (0.472, 0.628, 0.721, 0.981, 3.67, 18.437), (0.648, 0.59, 0.602, 0.91, 1.006, 1.509)
    memory = (81, 265, 952, 3604, 14020, 55300), (42, 80, 156, 308, 612, 1220)
    assert round(cab_efficiency_length(lengths, *time, skip=1)) == 1877
    assert round(cab_efficiency_length(lengths, *memory)) == 70


def test_cabs_fit_may_not_meet():
    lengths = (1, 2, 3, 4)
    assert cab_efficiency_length(lengths, (1, 4, 9, 16), (-9, -9, -9, -9)) == math.inf
