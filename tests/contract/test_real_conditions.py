"""Every registered attention keeps the contract at real conditions, some of them drawn at random.

The seed is fixed, so that the same commit passes or fails alike; set ``CAB_CONTRACT_SEED`` for
other conditions. By default the hardest pattern of each entry, a third of the fixed conditions
(which third follows from its name, so that entries on one engine see all of them between them) and
one that is drawn; all of them in the slow tests and in ``cab check``.
"""

import os
from dataclasses import replace

import pytest

from cab.checks import Case
from cab.checks.conditions import Condition
from cab.checks.report import REAL_CONDITIONS
from cab.registries import ATTENTIONS
from tests.contract.claims import CLAIMS, ONE_EACH
from tests.contract.share import SHARES, share_of

SEED = int(os.environ.get("CAB_CONTRACT_SEED", "0"))
FEW, MANY = 1, 4
"""Conditions drawn per check"""
FIXED = [Condition(batch=1 + i) for i in range(7)]


@pytest.mark.parametrize("check", REAL_CONDITIONS)
@pytest.mark.parametrize(("entry", "pattern"), ONE_EACH)
def test_contract_at_real_conditions(entry, pattern, check):
    case = Case(ATTENTIONS.load(entry), pattern, {}, SEED, draws=FEW, share=share_of(entry.id))
    REAL_CONDITIONS[check](case)


@pytest.mark.slow
@pytest.mark.parametrize("check", REAL_CONDITIONS)
@pytest.mark.parametrize(("entry", "pattern"), CLAIMS)
def test_contract_at_many_real_conditions(entry, pattern, check):
    REAL_CONDITIONS[check](Case(ATTENTIONS.load(entry), pattern, {}, SEED, draws=MANY))


def test_shares_are_all_conditions_between_them():
    case = Case(ATTENTIONS.load(ATTENTIONS.resolve("softmax")), ONE_EACH[0].values[1], {}, SEED)
    every = {at.number: at.condition for at in case.through(FIXED, "shares")}
    parts = [replace(case, share=(i, SHARES)).through(FIXED, "shares") for i in range(SHARES)]
    seen = [(at.number, at.condition) for part in parts for at in part]
    assert dict(seen) == every
    assert len(seen) == len(every) + (SHARES - 1) * case.draws
