"""``cab check``: the attention contract, for anyone's mechanism."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cab.candidate import choose_candidate
from cab.cli.console import bold, console, dim, styled, words
from cab.cli.options import parse_options
from cab.errors import UsageError
from cab.info import OptionValue, Scale
from cab.patterns import Pattern
from cab.registries import ALL
from cab.request import chosen_patterns

if TYPE_CHECKING:
    from cab.attention_contract import Attention
    from cab.checks.parameters import ParameterCounts
    from cab.checks.report import Finding

_STYLES = {"ok": "green", "FAIL": "red"}
_BUDGETED = Scale.SMALL
"""The scale whose backbones a mechanism's parameters are compared with"""


def check_command(
    name: str, patterns: list[str], options: list[str], preset: str, seed: int | None = None
) -> int:
    """Run every check on the claimed patterns; exit code 1 where one fails.

    An undecorated class claims nothing: without ``--pattern`` it is tried on all four, what it
    cannot hold is listed, and the exit code is 1 where it holds none.

    Without a seed the conditions that are drawn at random are others in every run.
    """
    candidate = choose_candidate(name, parse_options(options), preset)
    if candidate.parts:
        commands = ", ".join(dict.fromkeys(f"cab check {p.name}" for p in candidate.parts))
        raise UsageError(f"a hybrid keeps the contract where its parts do: {commands}")
    chosen = chosen_patterns(patterns)
    if ALL in patterns:
        chosen = [pattern for pattern in chosen if candidate.grade(pattern)]
    for pattern in chosen:
        candidate.require(pattern)
    import torch

    from cab.attention_contract import is_undecorated
    from cab.checks import Outcome, examine
    from cab.checks.report import fresh_seed

    # Small calls: a second thread gives nothing, and costs much where others use the machine.
    torch.set_num_threads(1)
    seed = fresh_seed() if seed is None else seed
    missing: set[str] = set()
    broken: dict[Pattern, list[Finding]] = {}
    cls, resolved = candidate.load(), candidate.options
    for pattern in chosen:
        found = examine(cls, pattern, resolved, seed)
        for finding in found:
            _print(pattern, finding)
        broken[pattern] = [f for f in found if f.outcome is Outcome.FAIL]
        missing |= {f.rule for f in found if f.outcome is Outcome.NOT_IMPLEMENTED}
        if not found[-1].last:
            _print_parameters(cls, pattern, resolved, seed, bool(broken[pattern]))
        else:
            console.print(
                words(f"{pattern.value:16} ", dim("the other rules have nothing to look at"))
            )
    tried = ALL in patterns and is_undecorated(cls)
    held = [pattern for pattern in chosen if not broken[pattern]]
    if tried and held:
        console.print(words("\n", bold(candidate.id), f" keeps the contract on {', '.join(held)}"))
        for pattern in chosen:
            if broken[pattern]:
                first = broken[pattern][0]
                why = f"{first.rule}: {first.message}"
                console.print(f"cannot hold: {pattern} ({why})", soft_wrap=True)
    else:
        failed = sum(map(len, broken.values()))
        rules = "1 rule" if failed == 1 else f"{failed} rules"
        verdict = "keeps the contract" if not failed else f"breaks {rules} of the contract"
        console.print(words("\n", bold(candidate.id), f" {verdict} on {', '.join(chosen)}"))
    if missing:
        console.print(f"not implemented, so not checked: {', '.join(sorted(missing))}")
    console.print(f"random conditions of seed {seed}: the same again with --seed {seed}")
    return 0 if (held if tried else len(held) == len(chosen)) else 1


def _print(pattern: Pattern, finding: Finding) -> None:
    style = _STYLES.get(finding.outcome, "yellow")
    message = finding.message.removeprefix(finding.outcome).removeprefix(": ")
    mark = styled(style, finding.outcome)
    console.print(words(f"{pattern.value:16} {finding.rule:20} ", mark, "  "), end="")
    console.print(message, soft_wrap=True)


def _print_parameters(
    cls: type[Attention],
    pattern: Pattern,
    options: Mapping[str, OptionValue],
    seed: int,
    broken: bool,
) -> None:
    """What it learns, and for one that keeps the rules, how much of the budget that takes."""
    from cab.checks import Case, count_parameters

    try:
        counts = count_parameters(Case(cls, pattern, options, seed).small())
    except Exception as error:  # a candidate may raise anything; a check above says where
        said = f"parameters not counted: {type(error).__name__}"
    else:
        said = f"{counts} (2 heads of 8)"
        if not broken:
            said += f"; {_budget(cls, pattern, options, counts)}"
    console.print(f"{pattern.value:16} {said}", soft_wrap=True)


def _budget(
    cls: type[Attention],
    pattern: Pattern,
    options: Mapping[str, OptionValue],
    counts: ParameterCounts,
) -> str:
    """The parameter budget in words: what is taken of it, or where it does not suffice."""
    if not counts.registered:
        return "nothing of the parameter budget"
    from runners.budget import budget_shares

    shares = budget_shares(cls, pattern, options, _BUDGETED)
    over = [share for share in shares if share.over]
    if over:
        names = ", ".join(share.task for share in over)
        return f"over the parameter budget at scale {_BUDGETED} in {names}: {over[0].over}"
    if not shares:
        return "no task has a parameter budget here"
    most = max(shares, key=lambda share: share.share)
    return (
        f"of the parameter budget of {most.budget:.0%} of a backbone it takes "
        f"{most.share:.1%} at most ({most.task}, scale {_BUDGETED})"
    )
