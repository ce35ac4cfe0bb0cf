"""All rules of the contract, and what came of each."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cab.attention_contract import Attention
from cab.checks import (
    causality,
    decoding,
    extras,
    gradients,
    isolation,
    masks,
    parameters,
    precision,
    small,
)
from cab.checks.advice import UnusableError, crash, place
from cab.checks.case import Case
from cab.errors import ContractError
from cab.info import OptionValue
from cab.patterns import Pattern

Check = Callable[[Case], str | None]
"""Raises `ContractError`, or says what it could not look at because it is not implemented."""

SMALL_CASE: dict[str, Check] = {
    "shape and dtype": small.check_shape_and_dtype,
    "masked keys": small.check_masked_keys,
    "batch independence": small.check_batch_independence,
    "determinism": small.check_determinism,
    "no leak": small.check_no_leak,
    "step": small.check_step,
    "reference": small.check_reference,
    "options": small.check_options,
}
"""The rules in the small case, exactly."""

REAL_CONDITIONS: dict[str, Check] = {
    "causality": causality.check_causality,
    "last queries": decoding.check_last_queries,
    "decoding": decoding.check_decoding,
    "mask content": masks.check_content,
    "mask holes": masks.check_holes,
    "rows apart": isolation.check_rows_apart,
    "calls": isolation.check_calls,
    "places": isolation.check_places,
    "precision": precision.check_precision,
    "zeros": precision.check_zeros,
    "derivatives": gradients.check_derivatives,
    "own reference": gradients.check_against_reference,
    "parameters": parameters.check_parameters,
    "auxiliary loss": extras.check_auxiliary_loss,
    "cost formulas": extras.check_cost_formulas,
}
"""The rules where a mechanism is used."""

CHECKS: dict[str, Check] = SMALL_CASE | REAL_CONDITIONS
"""Every rule of the contract by its short name."""

FIRST = next(iter(CHECKS))
"""A mechanism that crashes here crashes everywhere"""


class Outcome(StrEnum):
    """What came of a check."""

    OK = "ok"
    FAIL = "FAIL"
    NOT_IMPLEMENTED = small.NOT_IMPLEMENTED


@dataclass(frozen=True)
class Finding:
    """One rule, and what came of it."""

    rule: str
    outcome: Outcome
    message: str = ""
    last: bool = False
    """Whether the other rules have nothing to say after this one"""


def examine(
    cls: type[Attention],
    pattern: Pattern,
    options: Mapping[str, OptionValue],
    seed: int | None = None,
    draws: int = 8,
    share: tuple[int, int] = (0, 1),
) -> list[Finding]:
    """All checks on one pattern. A mechanism without output, or with one of another shape, is
    checked no further; a crash is told once, with its line, and the rules that it breaks besides
    refer to it.

    Args:
        cls: the mechanism.
        pattern: a pattern that it claims.
        options: its options.
        seed: of all that is drawn; None: another at every call, which violations are not to be
            tuned to.
        draws: random conditions of each check.
        share: of the fixed conditions of each check: every n-th from place i on, (i, n).
    """
    seed = fresh_seed() if seed is None else seed
    case = Case(cls, pattern, options, seed, draws=draws, share=share).small()
    findings: list[Finding] = []
    crashes: dict[str, str] = {}
    for rule, check in CHECKS.items():
        finding = _find(rule, check, case, crashes)
        findings.append(finding)
        if finding.last:
            break
    return findings


def fresh_seed() -> int:
    """Any."""
    return secrets.randbelow(1 << 30)


def _find(rule: str, check: Check, case: Case, crashes: dict[str, str]) -> Finding:
    """What came of a rule; ``crashes`` holds the rule under which each crash was told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missing = check(case)
    except ContractError as error:
        return Finding(rule, Outcome.FAIL, str(error), last=isinstance(error, UnusableError))
    except Exception as error:  # a candidate may raise anything; that is its violation
        kind = f"{type(error).__name__} {place(error, case.cls) or error}"  # sizes differ
        first = crashes.setdefault(kind, rule)
        message = crash(error, case.cls) if first == rule else f"crashes as under {first!r}"
        return Finding(rule, Outcome.FAIL, message, last=rule == FIRST)
    if missing:
        return Finding(rule, Outcome.NOT_IMPLEMENTED, missing)
    return Finding(rule, Outcome.OK)


def run_checks(
    cls: type[Attention],
    pattern: Pattern,
    options: Mapping[str, OptionValue],
    *,
    seed: int | None = None,
    draws: int = 8,
    share: tuple[int, int] = (0, 1),
) -> dict[str, str]:
    """All checks on one pattern; gives the violations by the name of the rule (empty: none).

    See `examine`, which also says what is not implemented.
    """
    found = examine(cls, pattern, options, seed, draws, share)
    return {f.rule: f.message for f in found if f.outcome is Outcome.FAIL}
