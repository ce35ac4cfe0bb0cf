"""Before minutes are spent on a candidate: does it keep the contract on this pattern?"""

from __future__ import annotations

from collections.abc import Mapping

from cab.checks import run_checks
from cab.errors import ContractError
from cab.info import AttentionInfo, OptionValue
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.registry import Entry

_OWN_PACKAGE = "attentions."


def require_contract(
    entry: Entry[AttentionInfo], pattern: Pattern, options: Mapping[str, OptionValue]
) -> None:
    """Hold a candidate from outside this project to the attention contract.

    The project's own entries are held to it by the test suite.

    Raises:
        ContractError: it breaks a rule; names the rule and the size of the violation.
    """
    if entry.target.startswith(_OWN_PACKAGE):
        return
    violations = run_checks(ATTENTIONS.load(entry), pattern, options)
    if violations:
        first = "; ".join(f"{rule}: {what}" for rule, what in violations.items())
        raise ContractError(f"breaks the attention contract on {pattern} ({first})")
