"""``cab show ID``."""

from __future__ import annotations

from rich.markup import escape

from cab.cli.console import console, table
from cab.errors import UnknownEntryError
from cab.info import AttentionInfo, TaskInfo
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS


def show_command(name: str) -> None:
    """Print what the registry knows of an attention or a task."""
    if name in TASKS.entries():
        _show_task(TASKS.resolve(name).info)
    elif ":" in name or name in ATTENTIONS.entries():
        _show_attention(ATTENTIONS.resolve(name).info)
    else:
        known = [*ATTENTIONS.entries(), *TASKS.entries()]
        raise UnknownEntryError("attention or task", name, known)


def _show_attention(info: AttentionInfo) -> None:
    console.print(f"[bold]{info.id}[/bold]  {escape(info.title)}  [dim]({info.kind})[/dim]")
    console.print(f"  {escape(info.formula)}\n")
    facts = table("", "")
    facts.show_header = False
    paper = ", ".join(str(x) for x in (info.paper, info.year) if x)
    for label, value in (
        ("paper", paper),
        ("url", info.url),
        ("time", info.time),
        ("memory", info.memory),
    ):
        if value:
            facts.add_row(f"[dim]{label}[/dim]", escape(value))
    console.print(facts)
    grades = table("pattern", "grade", title="\nPatterns")
    for pattern in Pattern:
        grade = info.grade(pattern)
        why = info.absent.get(pattern, "")
        grades.add_row(pattern.value, grade.value if grade else f"- [dim]{escape(why)}[/dim]")
    console.print(grades)
    if info.options:
        options = table("option", "default", "meaning", title="\nOptions (--option name=value)")
        for option in info.options:
            options.add_row(option.name, str(option.default), escape(option.help))
        console.print(options)
    for name, values in info.presets.items():
        words = ", ".join(f"{option}={value}" for option, value in values.items())
        console.print(f"\n[bold]--preset {escape(name)}[/bold]: {escape(words)}")


def _show_task(info: TaskInfo) -> None:
    console.print(f"[bold]{info.id}[/bold]  {escape(info.title)}")
    console.print(f"  {escape(info.description)}\n")
    facts = table("", "")
    facts.show_header = False
    for label, value in (
        ("data", info.dataset),
        ("--data-dir", info.data_dir),
        ("differs from CAB", info.differences),
        ("scales", ", ".join(info.scales)),
        ("paper", info.paper),
        ("url", info.url),
    ):
        if value:
            facts.add_row(f"[dim]{label}[/dim]", escape(value))
    console.print(facts)
    slots = table("pattern", "backbone", title="\nSlots")
    for pattern, backbone in info.backbones.items():
        slots.add_row(pattern.value, backbone)
    console.print(slots)
    metrics = table("metric", "unit", "better", "meaning", title="\nMetrics")
    for metric in info.metrics:
        better = "higher" if metric.higher_is_better else "lower"
        mark = "" if metric.headline else " [dim](not in the index)[/dim]"
        metrics.add_row(metric.name, metric.unit, better, escape(metric.help) + mark)
    console.print(metrics)
    if info.references:
        lines = table("reference", "of", "meaning", title="\nReferences")
        for line in info.references:
            lines.add_row(line.name, line.metric, escape(line.help))
        console.print(lines)
