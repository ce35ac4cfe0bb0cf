"""Intervals of costs that say nothing are not shown."""

import math

import pytest

from cab.scoring.crossover import ratio_of
from cab.scoring.curves import of_a_repeat
from cab.scoring.intervals import WIDEST, process_interval
from cab.sheets.words import NOTHING, UNSURE, amount_range, factor_range, unsure_notes


def test_processes_of_which_one_was_held_up_give_no_interval():
    held_up = process_interval([[1.0], [1.1], [40.0]])
    assert held_up.value == 1.1
    assert held_up.unsure
    assert not held_up.known
    assert not process_interval([[1.0]]).unsure
    quiet = process_interval([[1.0], [1.1], [1.2]])
    assert quiet.known
    assert quiet.high / quiet.low <= WIDEST


@pytest.mark.parametrize("spread", [0.01, 0.1, 0.5, 1.0, 3.0])
def test_no_interval_of_a_cost_is_wider_than_tenfold(spread):
    for n in range(2, 7):
        found = process_interval([[math.exp(spread * i / n)] for i in range(n)])
        wider = of_a_repeat(found)
        for interval in (found, wider, ratio_of(found, found)):
            assert interval.unsure or interval.high / interval.low <= WIDEST
        assert not (found.unsure and wider.known)


def test_words_say_that_an_interval_is_not_known_and_why():
    held_up, single = process_interval([[1.0], [1.1], [40.0]]), process_interval([[1.0]])
    assert amount_range(held_up, "s") == factor_range(held_up) == UNSURE
    assert amount_range(single, "s") == factor_range(single) == NOTHING
    assert unsure_notes([single, held_up])[0].startswith("not known: others kept the machine busy")
    assert unsure_notes([single]) == []
