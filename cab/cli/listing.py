"""``cab list``: straight from the registries, without importing any entry."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from cab.cli.console import console, table
from cab.info import Scale
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from cab.registry import BrokenEntry


def print_attentions() -> None:
    """Ids, grades by pattern, complexity, titles."""
    shown = table("id", *(p.abbreviation for p in Pattern), "time", "title")
    for info in ATTENTIONS.infos():
        grades = (info.grade(p) for p in Pattern)
        marks = [grade.value[0].upper() if grade else "-" for grade in grades]
        shown.add_row(info.id, *marks, info.time, info.title)
    console.print(shown)
    _print_broken(ATTENTIONS.broken())
    console.print("\n[dim]F faithful, E extension, A adapted, - none; more: cab show ID[/dim]")


def print_support() -> None:
    """The support matrix: for every attention and pattern a grade in words; then why not."""
    shown = table("id", *Pattern)
    reasons: dict[tuple[str, str], list[Pattern]] = {}
    for info in ATTENTIONS.infos():
        shown.add_row(info.id, *(info.grade(p) or "-" for p in Pattern))
        for pattern in Pattern:
            if info.grade(pattern) is None:
                why = info.absent.get(pattern, "no reason is given")
                reasons.setdefault((info.id, why), []).append(pattern)
    console.print(shown)
    _print_broken(ATTENTIONS.broken())
    console.print()
    for (name, why), patterns in reasons.items():
        console.print(f"[bold]{name}[/bold], no {', '.join(patterns)}: {escape(why)}")


def print_tasks() -> None:
    """Ids, patterns, scales, metrics, titles; probes last."""
    shown = table("id", "patterns", "scales", "first metric", "title")
    probes = 0
    for info in sorted(TASKS.infos(), key=lambda info: (info.probe, info.id)):
        if info.probe and not probes:
            shown.add_section()
            shown.add_row("[bold]probes[/bold]", "", "", "", "[dim]cab run --task probes[/dim]")
        probes += info.probe
        shown.add_row(
            info.id,
            " ".join(p.abbreviation for p in Pattern if p in info.backbones),
            _span(info.scales),
            info.metrics[0].name,
            info.title,
        )
    console.print(shown)
    _print_broken(TASKS.broken())


def _span(scales: Sequence[Scale]) -> str:
    """``tiny-paper``, or the names where one between them is missing."""
    every = list(Scale)
    between = every[every.index(scales[0]) : every.index(scales[-1]) + 1]
    if len(scales) > 1 and list(scales) == between:
        return f"{scales[0]}-{scales[-1]}"
    return " ".join(scales)


def print_patterns() -> None:
    """Names, abbreviations and meanings."""
    shown = table("", "pattern", "meaning")
    for pattern in Pattern:
        shown.add_row(pattern.abbreviation, pattern.value, pattern.meaning)
    console.print(shown)
    console.print(
        "\nGrades: faithful = as published; extension = the published formula on a pattern its "
        "authors did not report; adapted = the mechanism had to change."
    )


def _print_broken(entries: list[BrokenEntry]) -> None:
    for entry in entries:
        console.print(f"[red]broken[/red] {entry.id} ({entry.target}): {entry.reason}")
