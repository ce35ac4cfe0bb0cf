"""The quality runner: what an experiment gives, as rows, samples and a witness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from cab import Attention, Pattern, Scale, Task, seeds
from cab.analysis import Analysis
from cab.artifact import Artifact
from cab.cell import Cell
from cab.hybrids.formula import is_formula, parse
from cab.hybrids.placement import SLOTS_OF, slots_of_parts
from cab.registries import ATTENTIONS, TASKS
from cab.regularisers import ADVERSARIAL, STEPS, of_mechanism, of_training
from cab.schema import Row
from runners.adversarial import AdversarialExperiment
from runners.analysis.analyse import ANALYSES, analyse
from runners.experiment import Experiment
from runners.gate import require_contract
from runners.guard.guard import guard_built, guard_trained, watching
from runners.outcome import DivergedError
from runners.replicas import joined
from runners.report import Report
from runners.rows import measured, row_template
from runners.stretched import StretchedExperiment
from runners.training import Trained
from runners.wiring import WiredExperiment
from runners.witness.recording import Witnessing, witness_row


def run_quality(cell: Cell, report: Report) -> None:
    """Train and test one cell; reports progress and, at the end, the rows.

    Raises:
        UnsupportedError: the candidate exceeds the task's parameter budget.
        DivergedError: the loss became infinite or not a number.
        InvalidError: the candidate breaks the contract, by itself or in this model.
    """
    experiment = experiment_of(cell)
    task, slots = experiment.task, experiment.slots
    with joined(cell.device) as replicas:
        experiment.build()
        if not replicas.rank:
            guard_built(task, experiment.model, slots.candidates, cell.seed)
        witnessing = Witnessing(cell, experiment)
        trained = experiment.train(report, replicas, witnessing)
    if replicas.rank:
        return
    model, candidates = experiment.model, slots.candidates
    validation = experiment.modify(trained)
    with watching(candidates) as calls:
        scores = experiment.test()
    guard_trained(task, model, candidates, calls, experiment.parameters_added)
    template = row_template(cell)
    template.dataset, template.backbone = task.dataset, task.backbone
    template.parameters_total = experiment.parameters_total
    template.parameters_attention = experiment.parameters_added
    recipe = task.recipe
    template.train_steps, template.batch = trained.steps, recipe.batch_size * recipe.accumulate
    template.length_q, template.length_k = task.length()
    template.dtype = recipe.precision
    rows = _score_rows(task, template, scores, "test")
    rows += _score_rows(task, template, validation, "validation")
    rows += _reference_rows(task, template, experiment.references())
    rows += _analysis_rows(template, _analyses(task, model, candidates, cell))
    rows += _part_rows(cell, template, candidates)
    rows += _training_rows(template, trained)
    rows.append(witness_row(template, witnessing.witness()))
    report(done=1.0, rows=rows, artifacts=_artifacts(task, model, cell.seed))


def experiment_of(cell: Cell) -> Experiment:
    """What a quality cell asks for, with its data loaded and nothing built.

    Raises:
        InvalidError: a candidate from outside breaks the contract on this pattern.
    """
    pattern = Pattern.parse(cell.pattern)
    candidate = ATTENTIONS.class_at(cell.target)
    require_contract(cell)
    task_class = TASKS.class_at(cell.task_target)
    data_dir = Path(cell.data_dir) if cell.data_dir else None
    task: Task = task_class(pattern, Scale(cell.scale), data_dir)
    softmax = ATTENTIONS.class_at(cell.softmax_target)
    options = of_mechanism(cell.options)
    training = of_training(cell.options)
    if not training:
        return WiredExperiment(task, pattern, candidate, softmax, options, cell.seed, cell.device)
    [(name, size)] = training.items()
    kind = {ADVERSARIAL: AdversarialExperiment, STEPS: StretchedExperiment}[name]
    return kind(task, pattern, candidate, softmax, options, cell.seed, cell.device, float(size))


def _part_rows(cell: Cell, template: Row, candidates: Sequence[Attention]) -> list[Row]:
    """How many slots of the model each part of a hybrid has; none of what is no hybrid."""
    if not is_formula(cell.attention):
        return []
    counts = slots_of_parts(parse(cell.attention), [m.spec.layer_index for m in candidates])
    return [
        measured(
            template,
            phase="analysis",
            metric=f"{SLOTS_OF}{label}",
            value=float(number),
            unit="1",
            higher_is_better=False,
        )
        for label, number in counts.items()
    ]


def _training_rows(template: Row, trained: Trained) -> list[Row]:
    here = replace(template, phase="train", higher_is_better=False)
    rows = [measured(here, metric="train_time", value=trained.seconds, unit="s")]
    if trained.losses:
        last = trained.losses[-1]
        rows.append(
            measured(here, metric="train_loss", value=last, unit="loss", samples=trained.losses)
        )
    return rows


def _reference_rows(task: Task, template: Row, values: Mapping[str, float]) -> list[Row]:
    """What the test scores of this seed are read against: ``metric@reference``."""
    declared = {reference.name: reference for reference in task.info.references}
    rows = []
    for name, value in values.items():
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


def _analyses(
    task: Task, model: nn.Module, candidates: list[Attention], cell: Cell
) -> Mapping[Analysis, float]:
    """Those that every trained model has, and the task's own."""
    found = analyse(task, model, candidates, cell.device, cell.seed)
    with torch.no_grad():
        own = task.analyses(model.eval())
    return {one: found[one.name] for one in ANALYSES if one.name in found} | dict(own)


def _analysis_rows(template: Row, found: Mapping[Analysis, float]) -> list[Row]:
    """Analyses describe; one that is not a number is left out."""
    return [
        measured(
            template,
            phase="analysis",
            metric=analysis.name,
            value=value,
            unit=analysis.unit,
            higher_is_better=analysis.higher_is_better,
        )
        for analysis, value in found.items()
        if math.isfinite(value)
    ]


@torch.no_grad()
def _artifacts(task: Task, model: nn.Module, seed: int) -> list[Artifact]:
    """Samples of the first seed; the other seeds' would show the same."""
    if seed:
        return []
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "evaluation", "artifacts"))
        return task.artifacts(model, task.evaluation_seed(seed))


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
