"""What a candidate's training is given beside the recipe of its task.

It stands among the options of a cell, so that results with and without it have names and keys of
their own, under words that no constructor can have for an option of a mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping

from cab.info import OptionValue

ADVERSARIAL = "train.adversarial"
"""Size eps of the disturbance of the queries (`runners.adversarial`)"""

MOST_ADVERSARIAL = 100.0
"""A hundred times the query that is disturbed is no query any more"""

_NAMES = (ADVERSARIAL,)


def of_mechanism(options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """The options of a cell that its candidate is built with."""
    return {name: value for name, value in options.items() if name not in _NAMES}


def of_training(options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """The options of a cell that its training takes; mostly there are none."""
    return {name: value for name, value in options.items() if name in _NAMES}


def runner_of(kind: str, options: Mapping[str, OptionValue]) -> str:
    """What `cab.code_hash.runner_hash` calls the runner of a cell of a kind with such options."""
    return next(iter(of_training(options)), kind)
