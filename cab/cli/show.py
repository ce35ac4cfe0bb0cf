"""``cab show ID``: what the registry says of an attention or a task, and what was measured."""

from __future__ import annotations

from pathlib import Path

from cab.cli.console import bold, console, dim, styled, table, words
from cab.cli.options import require_folder
from cab.errors import RegistrationError
from cab.info import AttentionInfo, Family, TaskInfo
from cab.nearby import unknown_entry
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASKS
from cab.targets import WrongKindError


def show_command(name: str, out: Path, reference: bool = True) -> None:
    """Print what the registries know of an attention or a task, and what was measured of it; of
    what is broken, why it is and what to do.

    Args:
        name: id of an attention or a task, ``file.py:Class`` or ``module:Class``.
        out: results to show numbers from.
        reference: whether the project's own results are shown beside them.

    Raises:
        UnknownEntryError: neither registry has that id.
        RegistrationError: the target does not import, or is of neither kind.
        StoreError: the results cannot be read.
    """
    require_folder(out)
    known = name in TASKS.entries() or ATTENTIONS.listed(name) is not None
    if _show_broken(name, known) and not known:
        return
    info = _info(name)
    if isinstance(info, TaskInfo):
        _show_task(info)
    else:
        _show_attention(info)
    console.print()
    # What reads results takes a second to import; what there is no need to read does not wait.
    if not (reference or any(out.glob("*.parquet")) or out.is_file()):
        _say_unmeasured(out)
        return
    _show_measured(info, out, reference)


def _info(name: str) -> AttentionInfo | TaskInfo:
    """The record of an id or a target of either kind."""
    if name in TASKS.entries():
        return TASKS.resolve(name).info
    if ":" in name:
        try:
            return ATTENTIONS.resolve(name).info
        except WrongKindError:
            pass
        try:
            return TASKS.resolve(name).info
        except WrongKindError as error:
            raise RegistrationError(
                f"{name} is neither an attention nor a task: it must be a subclass of "
                "cab.Attention or cab.Task"
            ) from error
    if ATTENTIONS.listed(name) is not None:
        return ATTENTIONS.resolve(name).info
    known = [*ATTENTIONS.entries(), *TASKS.entries()]
    raise unknown_entry("attention or task", name, known, [ATTENTIONS.sought, TASKS.sought])


def _show_broken(name: str, known: bool) -> bool:
    """Explain the broken entries that a name may mean, of one that is an entry's those that have
    the same id; False where there are none.
    """
    shown = False
    for registry in (ATTENTIONS, TASKS):
        for entry in registry.broken():
            if not (entry.id == name if known else entry.answers_to(name)):
                continue
            broken = styled("red", f"broken {registry.noun}")
            console.print(words(bold(entry.id), "  ", broken))
            facts = table("", "")
            facts.show_header = False
            for label, value in (
                ("reason", entry.reason),
                ("code", entry.target),
                ("entry point", entry.point),
                ("declared by", entry.package),
                ("what to do", entry.remedy),
            ):
                if value:
                    facts.add_row(dim(label), value)
            console.print(facts)
            console.print()
            shown = True
    return shown


def _show_measured(info: AttentionInfo | TaskInfo, out: Path, reference: bool) -> None:
    from cab.cli import formats
    from cab.result_sources import ResultSources
    from cab.scoring.results import load_scores
    from cab.sheets.measured import attention_sheets, task_sheets
    from cab.sheets.notes import unread_notes
    from cab.sheets.reference import with_reference_notes

    sources = ResultSources.at(out, reference)
    results = load_scores(sources)
    sheets = (
        task_sheets(results, info)
        if isinstance(info, TaskInfo)
        else attention_sheets(results, info.id)
    )
    if not sheets:
        _say_unmeasured(out)
    for sheet in with_reference_notes(sheets, sources):
        formats.print_sheet(sheet)
        console.print()
    for note in unread_notes(results):
        console.print(dim(note))


def _say_unmeasured(out: Path) -> None:
    console.print(dim(f"not measured in {out}"), soft_wrap=True)


def _show_attention(info: AttentionInfo) -> None:
    console.print(words(bold(info.id), f"  {info.title}  ", dim(f"({_nature(info)})")))
    console.print(f"  {info.formula}\n")
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
            facts.add_row(dim(label), value)
    console.print(facts)
    grades = table("pattern", "grade", title="\nPatterns")
    for pattern in Pattern:
        grade = info.grade(pattern)
        why = info.absent.get(pattern, "")
        grades.add_row(pattern.value, grade.value if grade else words("- ", dim(why)))
    console.print(grades)
    if info.options:
        options = table("option", "default", "meaning", title="\nOptions (--option name=value)")
        for option in info.options:
            options.add_row(option.name, str(option.default), option.help)
        console.print(options)
    for name, values in info.presets.items():
        pairs = ", ".join(f"{option}={value}" for option, value in values.items())
        console.print(words("\n", bold(f"--preset {name}"), f": {pairs}"))


def _nature(info: AttentionInfo) -> str:
    """Kind and family, where the one does not say it all."""
    if info.family is Family.OTHER or info.family.value == info.kind.value:
        return info.kind.value
    return f"{info.kind}, {info.family}"


def _show_task(info: TaskInfo) -> None:
    console.print(words(bold(info.id), f"  {info.title}"))
    console.print(f"  {info.description}\n")
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
            facts.add_row(dim(label), value)
    console.print(facts)
    slots = table("pattern", "backbone", title="\nSlots")
    for pattern, backbone in info.backbones.items():
        slots.add_row(pattern.value, backbone)
    console.print(slots)
    for pattern, why in info.retired.items():
        console.print(
            words(
                "\n", bold(f"{pattern.value}: only where the task is named"),
                f" (--task {info.id}): it does not tell attention from none there. {why}",
            )
        )  # fmt: skip
    metrics = table("metric", "unit", "better", "meaning", title="\nMetrics")
    for metric in info.metrics:
        better = "higher" if metric.higher_is_better else "lower"
        mark = dim("" if metric.headline else " (not in the index)")
        metrics.add_row(metric.name, metric.unit, better, words(metric.help, mark))
    console.print(metrics)
    if info.references:
        lines = table("reference", "of", "meaning", title="\nReferences")
        for line in info.references:
            lines.add_row(line.name, line.metric, line.help)
        console.print(lines)
