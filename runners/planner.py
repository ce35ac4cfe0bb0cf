"""The planner: crosses attentions, patterns, tasks and seeds into cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cab import AttentionSpec
from cab.cell import Cell
from cab.code_hash import code_hash
from cab.errors import OptionError, UsageError
from cab.info import AttentionInfo, OptionValue, Scale, TaskInfo
from cab.patterns import Pattern
from cab.registries import ATTENTIONS, TASK_WORDS, TASKS, named_tasks
from cab.registry import Entry
from cab.request import preset_options, require_pattern, resolve_options

MEASURES = ("quality", "latency", "memory")
BASELINE = "softmax"
CONTROLS = (BASELINE, "none")
"""Measured beside every candidate, once: the store remembers them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, in the words of the command line."""

    attentions: Sequence[str]
    """Ids, ``file.py:Class``, ``module:Class``, or ``all``"""
    patterns: Sequence[str]
    """Names, abbreviations, or ``all``"""
    tasks: Sequence[str] = ()
    """Ids; empty: every task that has slots of the pattern"""
    scale: str = "small"
    seeds: int = 3
    device: str = "cpu"
    measures: Sequence[str] = MEASURES
    options: Mapping[str, str] = field(default_factory=dict)
    preset: str = ""
    """Name of settings that the candidates declare, under ``options``; empty: their defaults"""
    data_dir: Path | None = None


@dataclass(frozen=True)
class Plan:
    """Cells to have, and what was asked for but does not exist."""

    cells: list[Cell]
    candidates: list[str]
    patterns: list[Pattern]
    """Patterns that have cells"""
    notes: list[str]


def make_plan(request: Request, machine: str) -> Plan:
    """All cells of a request, controls included, in the order in which they should run.

    Raises:
        UsageError and its kinds: an id, pattern, scale, measure or option that does not exist, or
            an attention that supports none of the patterns.
        DataError: ``data_dir`` lacks files of a task.
    """
    scale = _scale(request.scale)
    if request.seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {request.seeds}")
    for measure in request.measures:
        if measure not in MEASURES:
            raise UsageError(f"unknown measure {measure!r}; choose from {', '.join(MEASURES)}")
    patterns = _patterns(request.patterns)
    entries = _entries(request.attentions)
    named = [TASKS.resolve(name) for name in request.tasks if name not in TASK_WORDS]
    tasks = _tasks(request.tasks, named, scale)
    options, notes = _options(entries, request)
    if request.data_dir is not None and not any(task.info.data_dir for task in tasks):
        names = ", ".join(task.id for task in tasks)
        raise UsageError(f"--data-dir is of no use here: {names} reads no original data")

    wanted: list[tuple[Pattern, Entry[AttentionInfo]]] = []
    for entry in entries:
        supported = [p for p in patterns if entry.info.grade(p) is not None]
        if not supported and "all" not in request.attentions:
            require_pattern(entry.info, patterns[0])
        notes += [
            f"{entry.id} does not support {pattern}: left out"
            for pattern in patterns
            if pattern not in supported
        ]
        wanted += [(pattern, entry) for pattern in supported]
    controls = [ATTENTIONS.resolve(name) for name in CONTROLS]
    chosen = {entry.id for entry in entries}

    cells: list[Cell] = []
    served_patterns: list[Pattern] = []
    for pattern in patterns:
        # Candidates come first: they tend to take longest, and a long cell at the end would leave
        # the other workers idle.
        lineup = [e for p, e in wanted if p == pattern]
        lineup += [e for e in controls if e.id not in chosen]
        if not any(p == pattern for p, _ in wanted):
            continue
        served = [t for t in tasks if pattern in t.info.backbones]
        notes += [
            f"task {t.id} has no {pattern} slots: left out"
            for t in tasks
            if t in named and t not in served
        ]
        served_patterns.append(pattern)
        if "quality" in request.measures:
            cells += _quality_cells(request, scale, pattern, lineup, served, options)
        measures = tuple(m for m in MEASURES[1:] if m in request.measures)
        if measures:
            lineup = [e for e in lineup if e.id in chosen or e.id == BASELINE]
            cells += _efficiency_cells(request, scale, pattern, lineup, options, machine, measures)
    if "quality" in request.measures and not any(c.kind == "quality" for c in cells):
        names = ", ".join(t.id for t in tasks)
        raise UsageError(
            f"no task of {names} has slots of {', '.join(patterns)}; see `cab list tasks`"
        )
    reached = {cell.pattern for cell in cells}
    shown = [pattern for pattern in served_patterns if pattern.value in reached]
    return Plan(cells, [entry.id for entry in entries], shown, notes)


def _quality_cells(
    request: Request,
    scale: Scale,
    pattern: Pattern,
    lineup: Sequence[Entry[AttentionInfo]],
    tasks: Sequence[Entry[TaskInfo]],
    options: Mapping[str, Mapping[str, OptionValue]],
) -> list[Cell]:
    cells = []
    runner = code_hash("runners.quality")
    softmax = code_hash(ATTENTIONS.resolve(BASELINE).target)
    for task in tasks:
        # Loading the task checks its data before anything is trained, and gives the data's hash.
        data_dir = data_dir_of(task.info, request.data_dir)
        loaded = TASKS.load(task)(pattern, scale, data_dir)
        task_hash = code_hash(task.target)
        cells += [
            Cell(
                kind="quality",
                attention=entry.id,
                target=entry.target,
                options=options.get(entry.id, entry.info.defaults()),
                grade=str(entry.info.grade(pattern)),
                attention_hash=code_hash(entry.target),
                softmax_hash=softmax,
                runner_hash=runner,
                pattern=pattern.value,
                task=task.id,
                task_target=task.target,
                task_hash=task_hash,
                data_hash=loaded.data_hash,
                data_dir=str(data_dir.resolve()) if data_dir else "",
                scale=scale.value,
                seed=seed,
                device=request.device,
            )
            for seed in range(request.seeds)
            for entry in lineup
            if entry.info.grade(pattern) is not None
        ]
    # Seed by seed across attentions: what an interrupted run leaves can be compared.
    return sorted(cells, key=lambda cell: cell.seed)


def _efficiency_cells(
    request: Request,
    scale: Scale,
    pattern: Pattern,
    lineup: Sequence[Entry[AttentionInfo]],
    options: Mapping[str, Mapping[str, OptionValue]],
    machine: str,
    measures: tuple[str, ...],
) -> list[Cell]:
    runner = code_hash("runners.efficiency.runner")
    softmax = code_hash(ATTENTIONS.resolve(BASELINE).target)
    return [
        Cell(
            kind="efficiency",
            attention=entry.id,
            target=entry.target,
            options=options.get(entry.id, entry.info.defaults()),
            grade=str(entry.info.grade(pattern)),
            attention_hash=code_hash(entry.target),
            softmax_hash=softmax,
            runner_hash=runner,
            pattern=pattern.value,
            scale=scale.value,
            seed=seed,
            device=request.device,
            machine=machine,
            measures=measures,
        )
        for seed in range(request.seeds)
        for entry in lineup
    ]


def data_dir_of(task: TaskInfo, data_dir: Path | None) -> Path | None:
    """Folder of a task's original data: ``data_dir/<task id>`` where there is one, else
    ``data_dir`` itself; None for a task that reads none.
    """
    if data_dir is None or not task.data_dir:
        return None
    own = data_dir / task.id
    return own if own.is_dir() else data_dir


def _scale(name: str) -> Scale:
    try:
        return Scale(name)
    except ValueError:
        raise UsageError(f"unknown scale {name!r}; choose from {', '.join(Scale)}") from None


def _tasks(
    names: Sequence[str], named: Sequence[Entry[TaskInfo]], scale: Scale
) -> list[Entry[TaskInfo]]:
    """The tasks asked for, without names all that are no probes; those that nobody named are left
    out where they lack the scale.
    """
    asked = named_tasks(names) or [info.id for info in TASKS.infos() if not info.probe]
    entries = [TASKS.resolve(name) for name in asked]
    kept = [entry for entry in entries if scale in entry.info.scales or entry in named]
    if not kept:
        raise UsageError(f"none of the tasks {', '.join(asked)} has a scale {scale}")
    return kept


def _patterns(names: Sequence[str]) -> list[Pattern]:
    if "all" in names:
        return list(Pattern)
    return list(dict.fromkeys(Pattern.parse(name) for name in names))


def _entries(names: Sequence[str]) -> list[Entry[AttentionInfo]]:
    if "all" in names:
        return list(ATTENTIONS.entries().values())
    chosen: dict[str, Entry[AttentionInfo]] = {}
    for name in names:
        entry = ATTENTIONS.resolve(name)
        other = chosen.setdefault(entry.id, entry)
        if other.target != entry.target:
            raise UsageError(
                f"{other.target} and {entry.target} both call themselves {entry.id!r}; "
                "give one of them another id in its AttentionInfo"
            )
    return list(chosen.values())


def _require_buildable(entry: Entry[AttentionInfo], options: Mapping[str, OptionValue]) -> None:
    """Refuse values that only the constructor knows to be wrong (one must be even, say), before a
    worker meets them in every cell.
    """
    cls = ATTENTIONS.load(entry)
    for pattern in entry.info.patterns:
        try:
            cls(AttentionSpec(pattern, heads=2, head_dim=8), **options)
        except ValueError as error:
            raise OptionError(f"attention {entry.id!r}: {error}") from error


def _options(
    entries: Sequence[Entry[AttentionInfo]], request: Request
) -> tuple[dict[str, dict[str, OptionValue]], list[str]]:
    """Options of each candidate, and what there is to say of them.

    A given option goes to every candidate that has it; a preset must be had by every candidate that
    was asked for by name.
    """
    given, preset = request.options, request.preset
    for name, value in given.items():
        if not any(name in entry.info.defaults() for entry in entries):
            resolve_options(entries[0].info, {name: value})
    lacking = [entry for entry in entries if preset and preset not in entry.info.presets]
    if lacking and ("all" not in request.attentions or len(lacking) == len(entries)):
        preset_options(lacking[0].info, preset)
    options = {}
    for entry in entries:
        chosen: dict[str, OptionValue] = {}
        if preset and entry not in lacking:
            chosen |= preset_options(entry.info, preset)
        chosen |= {k: v for k, v in given.items() if k in entry.info.defaults()}
        options[entry.id] = resolve_options(entry.info, chosen)
        if chosen:
            _require_buildable(entry, options[entry.id])
    notes = [f"{entry.id} has no preset {preset}: its defaults" for entry in lacking]
    return options, notes
