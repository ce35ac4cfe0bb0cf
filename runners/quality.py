"""The quality runner: trains a backbone with the candidate in its slots and tests it.

Two candidates under one seed share everything but the candidate: the initial shared weights, the
order of the data, the dropout masks. Differences can therefore be paired by seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from cab import Pattern, Scale, Slots, Task
from cab.artifact import Artifact
from cab.cell import Cell
from cab.registries import ATTENTIONS, TASKS
from cab.schema import Row
from runners.analysis.analyse import ANALYSES, analyse
from runners.calibration import switch_off, switch_on
from runners.gate import require_contract
from runners.outcome import DivergedError, UnsupportedError
from runners.replicas import joined
from runners.report import Report
from runners.rows import measured, row_template
from runners.training import evaluate, train


def run_quality(cell: Cell, report: Report) -> None:
    """Train and test one cell; reports progress and, at the end, the rows.

    Raises:
        UnsupportedError: the candidate exceeds the task's parameter budget.
        DivergedError: the loss became infinite or not a number.
        ContractError: a candidate from outside breaks the contract on this pattern.
    """
    pattern = Pattern.parse(cell.pattern)
    entry = ATTENTIONS.resolve(cell.target)
    candidate = ATTENTIONS.load(entry)
    require_contract(entry, pattern, cell.options)
    task_class = TASKS.load(TASKS.resolve(cell.task_target))
    task: Task = task_class(
        pattern, Scale(cell.scale), Path(cell.data_dir) if cell.data_dir else None
    )
    softmax = ATTENTIONS.load(ATTENTIONS.resolve("softmax"))

    with joined(cell.device) as replicas:
        slots = Slots(pattern, candidate, softmax, cell.options, cell.seed)
        torch.manual_seed(cell.seed)
        model = task.build(slots).to(cell.device)
        added, total = _within_budget(task, model, slots)
        switch_off(slots.candidates)
        trained = train(task, model, slots.candidates, cell.seed, report, replicas)
    if replicas.rank:
        return
    validation = switch_on(task, model, slots.candidates, cell.seed) or trained.validation
    scores = evaluate(task, model, "test", cell.seed, task.recipe)
    template = row_template(cell)
    template.dataset, template.backbone = task.dataset, task.backbone
    template.parameters_total, template.parameters_attention = total, added
    recipe = task.recipe
    template.train_steps, template.batch = trained.steps, recipe.batch_size * recipe.accumulate
    template.length_q, template.length_k = task.length()
    template.dtype = recipe.precision
    rows = _score_rows(task, template, scores, "test")
    rows += _score_rows(task, template, validation, "validation")
    rows += _reference_rows(task, template, cell.seed)
    rows += _analysis_rows(template, analyse(task, model, slots.candidates, cell.device))
    rows.append(
        measured(
            template,
            phase="train",
            metric="train_time",
            value=trained.seconds,
            unit="s",
            higher_is_better=False,
        )
    )
    if trained.losses:
        rows.append(
            measured(
                template,
                phase="train",
                metric="train_loss",
                value=trained.losses[-1],
                unit="loss",
                higher_is_better=False,
                samples=trained.losses,
            )
        )
    report(done=1.0, rows=rows, artifacts=_artifacts(task, model, cell.seed))


def _within_budget(task: Task, model: nn.Module, slots: Slots) -> tuple[int, int]:
    """Parameters that the candidate adds, and all.

    Raises:
        UnsupportedError: it adds too many.
    """
    added = sum(p.numel() for module in slots.candidates for p in module.parameters())
    total = sum(p.numel() for p in model.parameters())
    budget = task.parameter_budget
    if budget is not None and added > budget * (total - added):
        raise UnsupportedError(
            f"the attention adds {added} parameters to a backbone of {total - added}; the budget "
            f"is {budget:.0%}"
        )
    return added, total


@torch.no_grad()
def _reference_rows(task: Task, template: Row, seed: int) -> list[Row]:
    """What the test scores of this seed are read against: ``metric@reference``."""
    declared = {reference.name: reference for reference in task.info.references}
    rows = []
    for name, value in task.references(seed).items():
        metric = task.info.metric(declared[name].metric)
        rows.append(
            measured(
                template,
                phase="reference",
                metric=f"{metric.name}@{name}",
                value=value,
                unit=metric.unit,
                higher_is_better=metric.higher_is_better,
            )
        )
    return rows


def _analysis_rows(template: Row, found: Mapping[str, float]) -> list[Row]:
    """Analyses describe; one that is not a number is left out."""
    return [
        measured(
            template,
            phase="analysis",
            metric=analysis.name,
            value=found[analysis.name],
            unit=analysis.unit,
            higher_is_better=analysis.higher_is_better,
        )
        for analysis in ANALYSES
        if math.isfinite(found.get(analysis.name, math.nan))
    ]


@torch.no_grad()
def _artifacts(task: Task, model: nn.Module, seed: int) -> list[Artifact]:
    """Samples of the first seed; the other seeds' would show the same."""
    if seed:
        return []
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.artifacts(model, seed)


def _score_rows(task: Task, template: Row, scores: dict[str, float], split: str) -> list[Row]:
    """One row per metric; validation scores carry their split in the metric's name."""
    rows = []
    for name, value in scores.items():
        metric = task.info.metric(name)
        if not math.isfinite(value):
            raise DivergedError(f"{name} on the {split} split is {value}")
        rows.append(
            measured(
                template,
                phase="eval",
                metric=name if split == "test" else f"{split}_{name}",
                value=value,
                unit=metric.unit,
                higher_is_better=metric.higher_is_better,
            )
        )
    return rows
