"""What a comparison of two entries lets one say, in a sentence."""

from __future__ import annotations

import math

from cab.scoring.comparison import Comparison
from cab.scoring.intervals import Estimate, Interval
from cab.scoring.ranks import ALPHA
from cab.sheets.columns import LEVEL as LEVEL_WORDS
from cab.sheets.notes import SAME
from cab.sheets.words import bounds, digits_of, signed, significant

_FACTOR = 1.1
"""From here on a factor says more than percents"""
_LEAST = 0.01
"""Percents that are told from nothing"""


def verdict(compared: Comparison) -> str:
    """What is known of two entries, in a sentence that says no more than its numbers do."""
    one, other = compared.one, compared.other
    if not compared.tasks:
        return f"{one} and {other} share no task here, so nothing can be said."
    on = "on the one task" if len(compared.tasks) == 1 else f"on these {len(compared.tasks)} tasks"
    here, general = compared.here.interval(), compared.general.interval()
    better = f"{on.capitalize()} {one} is {factor_words(here.value, other)}"
    if not here.known:
        return f"{better}; a single seed does not tell whether that is more than noise."
    found = f"{signed(here.value, digits_of(here))}, {_interval(here)} over seeds"
    if _p(compared.here) >= ALPHA:
        return f"{one} and {other} are {SAME} {on}: the difference is {found}."
    sentence = f"{better} ({found})"
    if len(compared.tasks) == 1:
        return sentence + "; one task says nothing of others."
    if _p(compared.general) < ALPHA:
        return sentence + (
            f", and the tasks agree well enough to expect it of others of this kind "
            f"({_interval(general)} over tasks)."
        )
    return sentence + (
        f"; whether that holds on other tasks of this kind is not known "
        f"({_interval(general)} over tasks)."
    )


def factor_words(difference: float, other: str) -> str:
    """``better than softmax by a factor of 1.12`` for a difference of log-ratios of 0.113, and by
    percents where a factor would hardly differ from one.

    Args:
        difference: of log-ratios.
        other: what is compared with.
    """
    which = "better" if difference > 0 else "worse"
    factor = math.exp(abs(difference))
    if difference == 0:
        return f"neither better nor worse than {other}"
    if factor >= _FACTOR:
        return f"{which} than {other} by a factor of {factor:.2f}"
    percents = 100 * math.expm1(abs(difference))
    by = f"{significant(percents, 2)} %" if percents >= _LEAST else f"less than {_LEAST} %"
    return f"{which} than {other} by {by}"


def _interval(interval: Interval) -> str:
    """``95 % interval +0.010 to +0.200``."""
    return f"{LEVEL_WORDS} {bounds(interval, digits_of(interval), between='to')}"


def _p(estimate: Estimate) -> float:
    p = estimate.p_value()
    return 1.0 if math.isnan(p) else p
