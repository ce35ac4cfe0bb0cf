"""Every registered attention keeps the contract at real conditions, half of them drawn at random.

The seed is fixed, so that the same commit passes or fails alike; set ``CAB_CONTRACT_SEED`` for
other conditions. By default one pattern of each entry and fewer draws, all in the slow tests:
before anything is measured, a mechanism is held to them on every pattern that is asked for.
"""

import os

import pytest

from cab.checks import Case
from cab.checks.report import REAL_CONDITIONS
from cab.registries import ATTENTIONS
from tests.contract.claims import CLAIMS, ONE_EACH

SEED = int(os.environ.get("CAB_CONTRACT_SEED", "0"))
FEW, MANY = 2, 4
"""Conditions drawn per check"""


@pytest.mark.parametrize("check", REAL_CONDITIONS)
@pytest.mark.parametrize(("entry", "pattern"), ONE_EACH)
def test_contract_at_real_conditions(entry, pattern, check):
    REAL_CONDITIONS[check](Case(ATTENTIONS.load(entry), pattern, {}, SEED, draws=FEW))


@pytest.mark.slow
@pytest.mark.parametrize("check", REAL_CONDITIONS)
@pytest.mark.parametrize(("entry", "pattern"), CLAIMS)
def test_contract_at_many_real_conditions(entry, pattern, check):
    REAL_CONDITIONS[check](Case(ATTENTIONS.load(entry), pattern, {}, SEED, draws=MANY))
