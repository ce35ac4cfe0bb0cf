"""An experiment: a backbone with the candidate in its slots is built, trained and tested.

This is all of the runners that a score depends on; the key of a quality cell covers it, definition
by definition. Two candidates under one seed share everything but the candidate: the initial shared
weights, the order of the data, the dropout masks. Differences can therefore be paired by seed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from cab import Attention, Pattern, Slots, Task, seeds
from cab.info import OptionValue
from runners.calibration import switch_off, switch_on
from runners.observer import UNSEEN, Observer
from runners.outcome import UnsupportedError
from runners.replicas import Replicas
from runners.report import Report
from runners.training import ALONE, Trained, evaluate, train


class Experiment:
    """One seed of one candidate on one task."""

    def __init__(
        self,
        task: Task,
        pattern: Pattern,
        candidate: type[Attention],
        softmax: type[Attention],
        options: Mapping[str, OptionValue],
        seed: int,
        device: str,
    ) -> None:
        self.task = task
        self.seed = seed
        self.slots = Slots(pattern, candidate, softmax, options, seed)
        self.model: nn.Module = nn.Module()
        self.parameters_added = 0
        """By the candidate"""
        self.parameters_total = 0
        self._device = device

    def build(self) -> None:
        """The backbone, with the candidate in its slots and its modifications off.

        Raises:
            UnsupportedError: the candidate adds more parameters than the task allows.
        """
        torch.manual_seed(seeds.derive(self.seed, "weights"))
        self.model = self.task.build(self.slots).to(self._device)
        self._count_parameters()
        switch_off(self.slots.candidates)

    def train(
        self, report: Report, replicas: Replicas = ALONE, observer: Observer = UNSEEN
    ) -> Trained:
        """See `runners.training.train`."""
        return train(
            self.task, self.model, self.slots.candidates, self.seed, report, replicas, observer
        )

    def modify(self, trained: Trained) -> dict[str, float]:
        """Turn modifications on where they help; the validation scores of what is to be tested."""
        switched = switch_on(self.task, self.model, self.slots.candidates, self.seed)
        return switched or trained.validation

    def test(self) -> dict[str, float]:
        """Every metric on the test split."""
        return evaluate(self.task, self.model, "test", self.seed, self.task.recipe)

    def references(self) -> dict[str, float]:
        """What the test scores of this seed are read against, by the reference's name."""
        with torch.no_grad():
            return self.task.references(self.task.evaluation_seed(self.seed))

    def _count_parameters(self) -> None:
        added = sum(p.numel() for module in self.slots.candidates for p in module.parameters())
        total = sum(p.numel() for p in self.model.parameters())
        budget = self.task.parameter_budget
        if budget is not None and added > budget * (total - added):
            raise UnsupportedError(
                f"the attention adds {added} parameters to a backbone of {total - added}; the "
                f"budget is {budget:.0%}"
            )
        self.parameters_added, self.parameters_total = added, total
