"""The attention contract as checks: run by the tests on every entry, by `cab check`, and before a
candidate from outside is trained.

Each check takes a `Case` (a mechanism, a pattern, a condition), and raises `ContractError` with the
measured size of the violation and the condition. The rules are stated in
`cab.attention_contract.Attention`; what each of them looks at, in the modules here. They hold for
conditions that are fixed and for others that are drawn from a seed, which differ from run to run.
"""

from cab.checks.case import Case
from cab.checks.conditions import Condition
from cab.checks.inputs import Inputs
from cab.checks.parameters import all_parameters, count_parameters, unregistered
from cab.checks.report import CHECKS, Finding, Outcome, examine, run_checks

__all__ = [
    "CHECKS",
    "Case",
    "Condition",
    "Finding",
    "Inputs",
    "Outcome",
    "all_parameters",
    "count_parameters",
    "examine",
    "run_checks",
    "unregistered",
]
