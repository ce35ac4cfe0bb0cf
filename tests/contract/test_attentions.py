"""Every registered attention keeps the contract on every pattern that it claims."""

import pytest

from cab.checks import CHECKS, Case
from cab.registries import ATTENTIONS

CLAIMS = [
    pytest.param(entry, pattern, id=f"{entry.id}-{pattern.abbreviation}")
    for entry in ATTENTIONS.entries().values()
    for pattern in entry.info.patterns
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("entry", "pattern"), CLAIMS)
def test_contract(entry, pattern, check):
    for seed in range(2):
        CHECKS[check](Case(ATTENTIONS.load(entry), pattern, {}, seed))
