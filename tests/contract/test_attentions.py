"""Every registered attention keeps the contract on every pattern that it claims: the small case."""

import pytest

from cab.checks import Case
from cab.checks.report import SMALL_CASE
from cab.registries import ATTENTIONS
from tests.contract.claims import CLAIMS


@pytest.mark.parametrize("check", SMALL_CASE)
@pytest.mark.parametrize(("entry", "pattern"), CLAIMS)
def test_contract(entry, pattern, check):
    for seed in range(2):
        SMALL_CASE[check](Case(ATTENTIONS.load(entry), pattern, {}, seed))
