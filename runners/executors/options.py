"""Options of executors: each declares what it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cab.errors import UsageError

OptionValue = int | float | str


@dataclass(frozen=True)
class ExecutorOption:
    """One option, with the default and what it does."""

    name: str
    default: OptionValue
    help: str
    positive: bool = False
    """Whether a number must be above zero; it is never below"""
    choices: tuple[str, ...] = ()
    """The words that it takes; empty: any value of the default's type"""

    def cast(self, executor: str, value: OptionValue) -> OptionValue:
        """A value in the default's type.

        Raises:
            UsageError: it does not fit.
        """
        which = f"option {self.name!r} of executor {executor!r}"
        wanted = type(self.default)
        try:
            cast = wanted(value)
        except ValueError:
            raise UsageError(f"{which} takes {wanted.__name__}, not {value!r}") from None
        if self.choices and cast not in self.choices:
            raise UsageError(f"{which} is one of {', '.join(self.choices)}, not {value!r}")
        if isinstance(cast, str):
            return cast
        if not math.isfinite(cast) or cast < 0 or (self.positive and cast == 0):
            needs = "positive" if self.positive else "zero or positive"
            raise UsageError(f"{which} must be {needs} and finite, not {value!r}")
        return cast


def resolve(
    executor: str, declared: Sequence[ExecutorOption], given: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """Every declared option: as given, else its default.

    Raises:
        UsageError: one is given that is not declared, or does not fit; names those that are.
    """
    known = {option.name: option for option in declared}
    for name in given:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"executor {executor!r} has no option {name!r}; {has}")
    return {
        name: option.cast(executor, given.get(name, option.default))
        for name, option in known.items()
    }
