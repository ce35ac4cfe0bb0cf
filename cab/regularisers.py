"""What a candidate's training is given beside the recipe of its task.

It stands among the options of a cell, so that results with and without it have names and keys of
their own, under words that no constructor can have for an option of a mechanism.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from cab.errors import UsageError
from cab.info import OptionValue

ADVERSARIAL = "train.adversarial"
"""Size eps of the disturbance of the queries (`runners.adversarial`)"""

MOST_ADVERSARIAL = 100.0
"""A hundred times the query that is disturbed is no query any more"""

STEPS = "train.steps"
"""Multiple of the recipe's steps that is trained for (`runners.stretched`)"""

MOST_STEPS = 1000.0
_SHOWN = 40
"""Characters of a refused word that are shown"""

_NAMES = (ADVERSARIAL, STEPS)


def of_mechanism(options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """The options of a cell that its candidate is built with."""
    return {name: value for name, value in options.items() if name not in _NAMES}


def of_training(options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """The options of a cell that its training takes; mostly there are none."""
    return {name: value for name, value in options.items() if name in _NAMES}


def multiple_of(options: Mapping[str, object]) -> float:
    """The multiple of the recipe's steps that a cell of such options trains for: 1 where they say
    nothing else, not a number where they say what is none.
    """
    found = options.get(STEPS, 1.0)
    return float(found) if isinstance(found, int | float) and found > 0 else math.nan


def parse_steps(word: str | float) -> float:
    """The multiple of ``4x`` or ``0.5x``; a number is one already.

    Raises:
        UsageError: it is none, or beyond `MOST_STEPS`.
    """
    if isinstance(word, float):
        return word
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)x", word.strip())
    if found is None:
        cut = word if len(word) <= _SHOWN else f"{word[:_SHOWN]}..."
        raise UsageError(f"--steps takes a multiple, as in 4x or 0.5x, not {cut!r}")
    multiple = float(found[1])
    if not 1 / MOST_STEPS <= multiple <= MOST_STEPS:
        raise UsageError(
            f"--steps must be between {1 / MOST_STEPS:g}x and {MOST_STEPS:g}x, not {found[0]}"
        )
    return multiple


def times_words(multiple: float) -> str:
    """``4x`` or ``0.5x``."""
    return f"{multiple:g}x"


def runner_of(kind: str, options: Mapping[str, OptionValue]) -> str:
    """What `cab.code_hash.runner_hash` calls the runner of a cell of a kind with such options."""
    return next(iter(of_training(options)), kind)
