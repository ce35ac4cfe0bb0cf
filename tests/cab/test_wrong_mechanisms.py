"""Every wrong mechanism is refused by the rule that it breaks; right ones of odd kinds are not."""

import importlib

import pytest

from cab import Attention
from cab.checks import CHECKS, Case, run_checks
from cab.errors import ContractError
from tests.cab import right_mechanisms

MODULES = ("leaks", "masking", "isolation", "learning", "stepping")
DRAWS = 2
"""Conditions that each check of a right one draws; a wrong one meets as many as by default"""
SHARES = 3
"""A right one meets a third of the fixed conditions; all of them in the slow tests"""


def wrong_mechanisms():
    for name in MODULES:
        module = importlib.import_module(f"tests.cab.wrong_mechanisms.{name}")
        for cls in vars(module).values():
            own = isinstance(cls, type) and issubclass(cls, Attention)
            if (
                own
                and cls.__module__ == module.__name__
                and cls.CAUGHT
                and not cls.__subclasses__()
            ):
                for pattern in cls.PATTERNS:
                    mark = f"{cls.__name__}-{pattern.abbreviation}"
                    yield pytest.param(cls, pattern, id=mark)


@pytest.mark.parametrize(("cls", "pattern"), list(wrong_mechanisms()))
def test_a_wrong_mechanism_is_refused_by_the_rule_that_it_breaks(cls, pattern):
    with pytest.raises(ContractError):
        CHECKS[cls.CAUGHT](Case(cls, pattern, {}))


def right_mechanisms_of_odd_kinds():
    """One pattern and a third of the fixed conditions of each by default, not the same of all; all
    patterns at all conditions are slow.
    """
    kinds = [
        cls
        for cls in vars(right_mechanisms).values()
        if isinstance(cls, type) and cls.__module__ == right_mechanisms.__name__
    ]
    for number, cls in enumerate(kinds):
        chosen, share = cls.PATTERNS[number % len(cls.PATTERNS)], (number % SHARES, SHARES)
        name = f"{cls.__name__}-{chosen.abbreviation}"
        yield pytest.param(cls, chosen, share, id=f"{name}-a-third")
        for pattern in cls.PATTERNS:
            name = f"{cls.__name__}-{pattern.abbreviation}"
            yield pytest.param(cls, pattern, (0, 1), id=name, marks=pytest.mark.slow)


@pytest.mark.parametrize(("cls", "pattern", "share"), list(right_mechanisms_of_odd_kinds()))
def test_a_right_mechanism_of_an_odd_kind_passes(cls, pattern, share):
    assert run_checks(cls, pattern, {}, seed=1, draws=DRAWS, share=share) == {}
