"""The quality runner: trains a backbone with the candidate in its slots and tests it.

Two candidates under one seed share everything but the candidate: the initial shared weights, the
order of the data, the dropout masks. Differences can therefore be paired by seed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cab import Attention, Batch, Pattern, Recipe, Scale, Slots, Task
from cab.artifact import Artifact
from cab.cell import Cell
from cab.registries import ATTENTIONS, TASKS
from cab.schema import Row
from runners.gate import require_contract
from runners.outcome import DivergedError, UnsupportedError
from runners.report import Report
from runners.rows import measured, row_template


@dataclass
class Trained:
    """The chosen checkpoint of one training run."""

    steps: int
    """Optimisation steps of the chosen checkpoint."""
    seconds: float
    """Wall time of the optimisation, evaluations excluded."""
    losses: list[float]
    """Training loss at about fifty points."""
    validation: dict[str, float]


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

    slots = Slots(pattern, candidate, softmax, cell.options, cell.seed)
    torch.manual_seed(cell.seed)
    model = task.build(slots).to(cell.device)
    added = sum(p.numel() for module in slots.candidates for p in module.parameters())
    total = sum(p.numel() for p in model.parameters())
    budget = task.parameter_budget
    if budget is not None and added > budget * (total - added):
        raise UnsupportedError(
            f"the attention adds {added} parameters to a backbone of {total - added}; the budget "
            f"is {budget:.0%}"
        )

    trained = train(task, model, slots.candidates, cell.seed, report)
    scores = _evaluate(task, model, "test", cell.seed)
    template = row_template(cell)
    template.dataset, template.backbone = task.dataset, task.backbone
    template.parameters_total, template.parameters_attention = total, added
    template.train_steps, template.batch = trained.steps, task.recipe.batch_size
    template.length_q, template.length_k = task.length()
    template.dtype = "float32"
    rows = _score_rows(task, template, scores, "test")
    rows += _score_rows(task, template, trained.validation, "validation")
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


def train(
    task: Task, model: nn.Module, candidates: list[Attention], seed: int, report: Report
) -> Trained:
    """Train by the task's recipe and leave the model at its best validation checkpoint."""
    recipe = task.recipe
    if not any(p.requires_grad for p in model.parameters()):
        return Trained(0, 0.0, [], _evaluate(task, model, "validation", seed))
    optimiser = make_optimiser(model, candidates, recipe)
    device = next(model.parameters()).device
    draws = torch.Generator().manual_seed(seed)
    marks = {round(recipe.steps * (i + 1) / recipe.evaluations) for i in range(recipe.evaluations)}
    metric = task.info.metrics[0]
    best: Trained | None = None
    checkpoint: dict[str, Any] = {}
    losses: list[float] = []
    seconds, smooth = 0.0, 0.0
    clock = time.perf_counter()
    model.train()
    for step in range(1, recipe.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = min(learning_rate(recipe, step), group.get("max_lr", math.inf))
        batch = _to_device(task.training_batch(draws), device)
        # A candidate that draws random numbers must not shift the dropout masks of later steps.
        torch.manual_seed(seed * 1_000_003 + step)
        loss = task.loss(model, batch)
        for module in candidates:
            extra = module.auxiliary_loss()
            loss = loss if extra is None else loss + extra
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimiser.step()
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(f"the training loss is {value} at step {step} of {recipe.steps}")
        smooth = value if step == 1 else 0.9 * smooth + 0.1 * value
        if step % max(1, recipe.steps // 50) == 0 or step == recipe.steps:
            losses.append(smooth)
            report(done=0.95 * step / recipe.steps, loss=smooth)
        if step in marks:
            seconds += time.perf_counter() - clock
            scores = _evaluate(task, model, "validation", seed)
            if best is None or _better(
                scores, best.validation, metric.name, metric.higher_is_better
            ):
                best = Trained(step, 0.0, [], scores)
                checkpoint = {k: v.clone() for k, v in model.state_dict().items()}
            model.train()
            clock = time.perf_counter()
    assert best is not None
    model.load_state_dict(checkpoint)
    return Trained(best.steps, seconds, losses, best.validation)


def make_optimiser(
    model: nn.Module, candidates: list[Attention], recipe: Recipe
) -> torch.optim.Optimizer:
    """AdamW, with the parameter groups that the candidates ask for."""
    groups: list[dict[str, Any]] = [g for module in candidates for g in module.parameter_groups()]
    special = {id(p) for group in groups for p in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in special]
    return torch.optim.AdamW(
        [{"params": rest}, *groups] if rest else groups,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
    )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine from the peak to its final fraction; steps count from 1."""
    warm = min(1.0, step / max(1, recipe.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))
    floor = recipe.final_lr_fraction
    return recipe.learning_rate * warm * (floor + (1 - floor) * cosine)


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module, split: Any, seed: int) -> dict[str, float]:
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.evaluate(model, split, seed)


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


def _better(new: dict[str, float], old: dict[str, float], name: str, higher: bool) -> bool:
    # A checkpoint whose score is not a number never wins against one that has a number.
    if math.isnan(old[name]):
        return True
    return new[name] > old[name] if higher else new[name] < old[name]


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}
