"""``cab check``: the attention contract, for anyone's mechanism."""

from __future__ import annotations

from cab.cli.console import console
from cab.cli.options import parse_options
from cab.patterns import Pattern
from cab.registries import ATTENTIONS
from cab.request import preset_options, require_pattern, resolve_options


def check_command(name: str, patterns: list[str], options: list[str], preset: str) -> int:
    """Run every check on the claimed patterns; exit code 1 where one fails."""
    entry = ATTENTIONS.resolve(name)
    named = preset_options(entry.info, preset) if preset else {}
    resolved = resolve_options(entry.info, named | parse_options(options))
    if "all" in patterns:
        chosen = [p for p in Pattern if entry.info.grade(p)]
    else:
        chosen = [Pattern.parse(p) for p in patterns]
        for pattern in chosen:
            require_pattern(entry.info, pattern)
    from cab.checks import CHECKS, run_checks

    failed = 0
    cls = ATTENTIONS.load(entry)
    for pattern in chosen:
        violations = run_checks(cls, pattern, resolved)
        failed += len(violations)
        for rule in CHECKS:
            mark = "[red]FAIL[/red]" if rule in violations else "[green]ok[/green]"
            console.print(f"{pattern.value:16} {rule:20} {mark}  {violations.get(rule, '')}")
    verdict = "keeps the contract" if not failed else f"breaks {failed} rules of the contract"
    console.print(f"\n[bold]{entry.id}[/bold] {verdict} on {', '.join(chosen)}")
    return 1 if failed else 0
