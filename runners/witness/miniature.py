"""A training run of full length in miniature: the task's recipe, from the first step to the last.

The first steps of a real run do not show how a schedule ends, whether weights are averaged, or how
a checkpoint is chosen. A toy problem does, in a tenth of a millisecond a step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cab import Batch, Recipe, Slots, Task, seeds
from cab.task_contract import Split
from runners.training import train
from runners.witness.digest import Digest

_ROWS, _INPUTS, _HIDDEN = 4, 3, 4


class Miniature(Task):
    """Regression of a product by four hidden units, under the recipe of a real task."""

    def __init__(self, task: Task) -> None:
        # Not the base's constructor, which asks for a pattern and a scale.
        self.info = task.info  # type: ignore[misc]  # of this instance alone
        self._recipe = task.recipe
        self._evaluations = 0
        self.checkpoints = Digest()
        """Of the weights at every evaluation, chosen or not"""

    @property
    def data_hash(self) -> str:
        """There is no data."""
        return ""

    @property
    def recipe(self) -> Recipe:
        """That of the real task."""
        return self._recipe

    def build(self, slots: Slots | None = None) -> nn.Module:
        """A perceptron with dropout."""
        return nn.Sequential(
            nn.Linear(_INPUTS, _HIDDEN), nn.Tanh(), nn.Dropout(0.1), nn.Linear(_HIDDEN, 1)
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Normal inputs."""
        return {"x": torch.randn(_ROWS, _INPUTS, generator=generator)}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error."""
        return (model(batch["x"])[:, 0] - batch["x"].prod(-1)).square().mean()

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """A score that is best at a checkpoint in the middle, so that the choice among them shows;
        it contains the loss, so that the weights do.
        """
        self._evaluations += 1
        self.checkpoints.tensors(model.state_dict())
        metric = self.info.metrics[0]
        x = torch.linspace(-1, 1, _ROWS * _INPUTS).view(_ROWS, _INPUTS)
        loss = self.loss(model, {"x": x}).item()
        middle = (self._recipe.evaluations + 1) // 2
        wave = 10.0 if self._evaluations == middle else math.sin(self._evaluations)
        return {metric.name: wave - loss if metric.higher_is_better else loss - wave}


def run_miniature(task: Task, seed: int) -> tuple[str, list[float]]:
    """Digest of the chosen weights and of all losses, and a few of these numbers."""
    small = Miniature(task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(seed, "witness"))
        model = small.build()
        trained = train(small, model, [], seed, _unreported)
    digest = Digest()
    digest.tensors(model.state_dict())
    digest.text(small.checkpoints.value())
    digest.text(repr((trained.steps, trained.losses, trained.validation)))
    return digest.value(), [float(trained.steps), *trained.validation.values(), trained.losses[-1]]


def _unreported(**_: Any) -> None:
    pass
