"""Training for another number of steps than the recipe's: do short runs tell what long ones do?

The recipe is stretched as a whole, so that its schedule keeps its shape: steps, warm-up and the
horizon over which weights are averaged are a multiple of what they were; batches, learning rate and
the number of evaluations stay. A run at half of the steps sees the first half of the batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from cab import Attention, Pattern, Recipe, Task
from cab.info import OptionValue
from runners.wiring import WiredExperiment


class StretchedExperiment(WiredExperiment):
    """An experiment whose task has a stretched recipe, for the candidate and whatever it is read
    against alike.
    """

    def __init__(
        self,
        task: Task,
        pattern: Pattern,
        candidate: type[Attention],
        softmax: type[Attention],
        options: dict[str, OptionValue],
        seed: int,
        device: str,
        multiple: float,
    ) -> None:
        own = cast("Task", Stretched(task, multiple))
        super().__init__(own, pattern, candidate, softmax, options, seed, device)


class Stretched:
    """A task whose recipe is stretched. All else is the task's own."""

    def __init__(self, task: Task, multiple: float) -> None:
        self._task, self._multiple = task, multiple

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return stretched(self._task.recipe, self._multiple)

    def reduced(self) -> Task:
        """See `cab.Task.reduced`."""
        return cast("Task", Stretched(self._task.reduced(), self._multiple))


def stretched(recipe: Recipe, multiple: float) -> Recipe:
    """The recipe at a multiple of its steps; at least one step for each of its evaluations."""
    return replace(
        recipe,
        steps=max(recipe.evaluations, round(multiple * recipe.steps)),
        warmup_steps=round(multiple * recipe.warmup_steps),
        averaging=recipe.averaging ** (1 / multiple) if recipe.averaging else 0.0,
    )
