"""Recording the witness of a cell while it is trained."""

from __future__ import annotations

import json
from dataclasses import asdict

import torch
from torch import Tensor, nn

from cab import Attention, Batch, Recipe
from cab.cell import Cell
from cab.code_hash import code_hash
from cab.schema import Row
from runners.environment import device_name
from runners.experiment import Experiment
from runners.observer import Observer
from runners.rows import measured
from runners.training import learning_rate
from runners.witness.digest import Digest, digest_of, sums_of
from runners.witness.miniature import run_miniature
from runners.witness.record import Witness
from runners.witness.untrained import untrained_metrics

FIRST_STEPS = 5
_OF_TORCH = frozenset({"training", "_is_full_backward_hook"})


class Witnessing(Observer):
    """Looks on at an experiment that is built and not yet trained."""

    def __init__(self, cell: Cell, experiment: Experiment) -> None:
        self._cell = cell
        self._experiment = experiment
        task, model, seed = experiment.task, experiment.model, experiment.seed
        weights = list(model.state_dict().values())
        self._weights, self._sums = digest_of(weights), sums_of(weights)
        self._state = _state_of(experiment.slots.candidates)
        self._untrained, self._looked_at = untrained_metrics(task.reduced(), model, seed)
        trains = any(p.requires_grad for p in model.parameters())
        self._miniature, self._miniature_scores = run_miniature(task, seed) if trains else ("", [])
        self._batches = Digest()
        self._first_batches = self._batches.value()
        self._steps = 0
        self._losses: list[float] = []

    def batch(self, batch: Batch) -> None:
        """See `Observer`."""
        self._batches.tensors(batch)

    def loss(self, step: int, value: float) -> None:
        """See `Observer`."""
        if step <= FIRST_STEPS:
            self._losses.append(value)
            self._first_batches = self._batches.value()

    def witness(self, batches: str | None = None) -> Witness:
        """What was seen; ``batches``: the digest of all batches, where training was cut short."""
        candidates = self._experiment.slots.candidates
        cell = self._cell
        return Witness(
            processor=device_name(cell.device),
            losses=self._losses,
            weights=self._weights,
            weight_sums=self._sums,
            first_batches=self._first_batches,
            batches=self._batches.value() if batches is None else batches,
            recipe=recipe_digest(self._experiment.task.recipe),
            untrained=self._untrained,
            looked_at=self._looked_at,
            miniature=self._miniature,
            miniature_scores=self._miniature_scores,
            evaluation_code=code_hash(cell.task_target, ("evaluate", "references")),
            attention_code=cell.attention_hash,
            stateful=self._state != _state_of(candidates),
        )


def recipe_digest(recipe: Recipe) -> str:
    """Of every field, and of the learning rate at every step."""
    digest = Digest()
    digest.text(json.dumps(asdict(recipe), sort_keys=True))
    rates = [learning_rate(recipe, step) for step in range(1, recipe.steps + 1)]
    digest.tensor(torch.tensor(rates, dtype=torch.float64))
    return digest.value()


def witness_row(template: Row, witness: Witness) -> Row:
    """As a row of the result table."""
    return measured(
        template,
        phase="witness",
        metric="witness_losses",
        value=float(len(witness.losses)),
        unit="1",
        samples=witness.losses,
        witness=witness.to_json(),
    )


def _state_of(candidates: list[Attention]) -> str:
    """Digest of what modules hold besides their parameters."""
    digest = Digest()
    for candidate in candidates:
        for module in candidate.modules():
            _note(digest, module)
    return digest.value()


def _note(digest: Digest, module: nn.Module) -> None:
    for name, buffer in sorted(module.named_buffers(recurse=False)):
        digest.text(name)
        digest.tensor(buffer)
    for name, value in sorted(vars(module).items()):
        if name in _OF_TORCH:
            continue
        if isinstance(value, bool | int | float | str):
            digest.text(f"{name}={value!r}")
        elif isinstance(value, Tensor):
            digest.text(name)
            digest.tensor(value)
