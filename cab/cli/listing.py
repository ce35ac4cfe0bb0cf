"""``cab list``: straight from the registries, without importing any entry."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from cab.cli.console import bold, console, dim, styled, table, words
from cab.errors import UnknownEntryError
from cab.info import AttentionInfo, Family, Scale, TaskInfo
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from cab.registry import BrokenEntry


def attentions_of(families: Sequence[str]) -> list[AttentionInfo]:
    """Records of the attentions of some families, of all where none is named.

    Raises:
        UnknownEntryError: there is no such family.
    """
    for name in families:
        if name not in set(Family):
            raise UnknownEntryError("family", name, Family)
    infos = ATTENTIONS.infos()
    return [info for info in infos if info.family in families] if families else infos


def print_attentions(infos: Sequence[AttentionInfo]) -> None:
    """Ids, families, grades by pattern, complexity, titles."""
    shown = table("id", "family", *(p.abbreviation for p in Pattern), "time", "title")
    for info in infos:
        grades = (info.grade(p) for p in Pattern)
        marks = [grade.value[0].upper() if grade else "-" for grade in grades]
        shown.add_row(info.id, info.family, *marks, info.time, info.title)
    console.print(shown)
    _print_broken("attention", ATTENTIONS.broken())
    console.print(dim("\nF faithful, E extension, A adapted, - none; more: cab show ID"))


def print_support(infos: Sequence[AttentionInfo]) -> None:
    """The support matrix: for every attention and pattern a grade in words; then why not."""
    shown = table("id", *Pattern)
    reasons: dict[tuple[str, str], list[Pattern]] = {}
    for info in infos:
        shown.add_row(info.id, *(info.grade(p) or "-" for p in Pattern))
        for pattern in Pattern:
            if info.grade(pattern) is None:
                why = info.absent.get(pattern, "no reason is given")
                reasons.setdefault((info.id, why), []).append(pattern)
    console.print(shown)
    _print_broken("attention", ATTENTIONS.broken())
    console.print()
    for (name, why), patterns in reasons.items():
        console.print(words(bold(name), f", no {', '.join(patterns)}: {why}"))


def print_tasks() -> None:
    """Ids, patterns, scales, metrics, titles; probes last."""
    shown = table("id", "patterns", "scales", "first metric", "title")
    probes, retired = 0, False
    for info in sorted(TASKS.infos(), key=lambda info: (info.probe, info.id)):
        if info.probe and not probes:
            shown.add_section()
            shown.add_row(bold("probes"), "", "", "", dim("cab run --task probes"))
        probes += info.probe
        retired |= bool(info.retired)
        shown.add_row(
            info.id,
            " ".join(_pair(info, p) for p in Pattern if p in info.backbones),
            _span(info.scales),
            info.metrics[0].name,
            info.title,
        )
    console.print(shown)
    _print_broken("task", TASKS.broken())
    if retired:
        console.print(
            dim(
                "\n(NS): does not tell attention from none there, so it is measured and ranked "
                "only where the task is named; why: cab show ID"
            )
        )


def _pair(info: TaskInfo, pattern: Pattern) -> str:
    """The pattern's abbreviation, in parentheses where the task is retired on it."""
    return f"({pattern.abbreviation})" if pattern in info.retired else pattern.abbreviation


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


def _print_broken(noun: str, entries: list[BrokenEntry]) -> None:
    for entry in entries:
        more = f"cab show {shlex.quote(entry.id)}"
        what = f" {entry.id} ({entry.target}): {entry.reason}; more: {more}"
        console.print(words(styled("red", f"broken {noun}"), what))
