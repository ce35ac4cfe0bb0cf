"""Training by a task's recipe, the same for every attention, and evaluation."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cab import Attention, Batch, Recipe, Task, seeds
from cab.task_contract import Split
from runners.observer import UNSEEN, Observer
from runners.outcome import DivergedError
from runners.replicas import Replicas
from runners.report import Report

ALONE = Replicas()


@dataclass
class Trained:
    """The chosen checkpoint of one training run."""

    steps: int
    """Optimisation steps of the chosen checkpoint."""
    seconds: float
    """Wall time of the optimisation, evaluations excluded."""
    losses: list[float]
    """Training loss at about fifty points, auxiliary losses excluded."""
    validation: dict[str, float]


def train(
    task: Task,
    model: nn.Module,
    candidates: list[Attention],
    seed: int,
    report: Report,
    replicas: Replicas = ALONE,
    observer: Observer = UNSEEN,
) -> Trained:
    """Train by the task's recipe and leave the model at its best validation checkpoint.

    Where several processes train together, that of rank 0 evaluates and chooses; the models of the
    others are left at the last step.

    Raises:
        DivergedError: a loss became infinite or not a number.
    """
    recipe = task.recipe
    if not any(p.requires_grad for p in model.parameters()):
        return Trained(0, 0.0, [], evaluate(task, model, "validation", seed, recipe))
    optimiser = make_optimiser(model, candidates, recipe)
    averaged = copy.deepcopy(model).requires_grad_(False) if recipe.averaging else model
    draws = seeds.generator(seed, "data")
    device = next(model.parameters()).device
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
        # A candidate that draws random numbers must not shift the dropout masks of later steps.
        _seed(seeds.derive(seed, "dropout", step, replicas.rank), device)
        value = _accumulate(task, model, candidates, draws, replicas, observer)
        observer.loss(step, value)
        if not math.isfinite(value):
            raise DivergedError(f"the training loss is {value} at step {step} of {recipe.steps}")
        nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if recipe.averaging:
            _average(averaged, model, recipe.averaging, step)
        smooth = value if step == 1 else 0.9 * smooth + 0.1 * value
        if step % max(1, recipe.steps // 50) == 0 or step == recipe.steps:
            losses.append(smooth)
            report(done=0.95 * step / recipe.steps, loss=smooth)
        if step in marks and replicas.rank == 0:
            seconds += time.perf_counter() - clock
            scores = evaluate(task, averaged, "validation", seed, recipe)
            if best is None or better(
                scores, best.validation, metric.name, metric.higher_is_better
            ):
                best = Trained(step, 0.0, [], scores)
                checkpoint = {k: v.clone() for k, v in averaged.state_dict().items()}
            model.train()
            clock = time.perf_counter()
    if replicas.rank:
        return Trained(recipe.steps, seconds, losses, {})
    assert best is not None
    model.load_state_dict(checkpoint)
    return Trained(best.steps, seconds, losses, best.validation)


def _accumulate(
    task: Task,
    model: nn.Module,
    candidates: list[Attention],
    draws: torch.Generator,
    replicas: Replicas,
    observer: Observer,
) -> float:
    """Add the gradients of a step's batches; gives the mean of the task's loss over them."""
    recipe = task.recipe
    device = next(model.parameters()).device
    share = replicas.share(recipe.accumulate)
    total = 0.0
    for number in range(recipe.accumulate):
        drawn = task.training_batch(draws)
        observer.batch(drawn)
        if number not in share:
            continue
        batch = to_device(drawn, device)
        with autocast(device, recipe):
            loss = task.loss(model, batch)
            extra = auxiliary_loss(candidates)
        # What a candidate adds is for the gradient alone: the losses that are reported are the
        # task's.
        (loss if extra is None else loss + extra).div(recipe.accumulate).backward()
        total += loss.item()
    replicas.sum_gradients(model)
    return replicas.sum(total, device) / recipe.accumulate


def auxiliary_loss(candidates: list[Attention]) -> Tensor | None:
    """What the candidates ask to be added to the loss that is minimised; it is never reported.

    Raises:
        DivergedError: it is infinite or not a number.
    """
    terms = [extra for module in candidates if (extra := module.auxiliary_loss()) is not None]
    if not terms:
        return None
    total = torch.stack([term.reshape(()) for term in terms]).sum()
    if not math.isfinite(total.item()):
        raise DivergedError(f"the auxiliary loss is {total.item()}")
    return total


def _seed(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed` does it, which takes a millisecond to look after devices that this
    process does not use.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the averages towards the weights; early ones count less than the decay would have it,
    or the start would stay in the average for long.
    """
    keep = min(decay, step / (step + 9))
    sources = model.state_dict()
    for name, tensor in averaged.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(sources[name], 1 - keep)
        else:
            tensor.copy_(sources[name])


def make_optimiser(
    model: nn.Module, candidates: list[Attention], recipe: Recipe
) -> torch.optim.Optimizer:
    """AdamW, with the parameter groups that the candidates ask for."""
    groups: list[dict[str, Any]] = [g for module in candidates for g in module.parameter_groups()]
    special = {id(p) for group in groups for p in group["params"]}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in special]
    everything = [*rest, *(p for group in groups for p in group["params"])]
    return torch.optim.AdamW(
        [{"params": rest}, *groups] if rest else groups,
        lr=recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        # One pass over all weights; it does not know complex ones.
        fused=all(p.is_floating_point() for p in everything),
    )


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then the recipe's schedule; steps count from 1."""
    warm = min(1.0, step / max(1, recipe.warmup_steps))
    if recipe.schedule == "constant":
        return recipe.learning_rate * warm
    if recipe.schedule == "inverse-sqrt":
        warmup = max(1, recipe.warmup_steps)
        return recipe.learning_rate * warm * min(1.0, math.sqrt(warmup / step))
    passed = min(1.0, step / recipe.steps)
    left = 1 - passed if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * passed))
    floor = recipe.final_lr_fraction
    return recipe.learning_rate * warm * (floor + (1 - floor) * left)


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, split: Split, seed: int, recipe: Recipe
) -> dict[str, float]:
    """Every metric on a split, in eval mode; torch's random state stays as it was.

    Args:
        task: with the split's data.
        model: is left in eval mode.
        split: validation or test.
        seed: of the run, which the task may not have its evaluations depend on.
        recipe: for its precision.
    """
    drawing = task.evaluation_seed(seed)
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]), autocast(device, recipe):
        torch.manual_seed(seeds.derive(drawing, "evaluation", split))
        return task.evaluate(model, split, drawing)


@contextlib.contextmanager
def autocast(device: torch.device, recipe: Recipe) -> Iterator[None]:
    """Automatic mixed precision where the recipe has it."""
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        yield


def better(new: dict[str, float], old: dict[str, float], name: str, higher: bool) -> bool:
    """Whether new scores have a better value of a metric than old ones."""
    # A checkpoint whose score is not a number never wins against one that has a number.
    if math.isnan(old[name]):
        return True
    return new[name] > old[name] if higher else new[name] < old[name]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch's tensors on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}
