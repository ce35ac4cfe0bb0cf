"""Training against an adversary in the attention of a slot.

After Attention Meets Perturbations (Kitada and Iyatomi 2021, arXiv 2009.12064), attention AT: the
scores a of attention are disturbed along the normalised gradient of the loss, and what is minimised
is

    L(a) + lambda L(a + eps r),   r = g / |g|,   g = dL/da,   lambda = 1

with no gradient through r. There a is one vector of scores for a sample. Here the queries are
disturbed in its stead, as in the analysis of trained models (`runners.analysis.perturbation`):
every mechanism has them, and they move the scores q·k alike. q_i becomes q_i + eps |q_i| r_i, in
all slots of the candidate at once. The recipe of the task is not changed; a step takes two forward
passes and one and a half backward ones. Of the paper's second form, attention iAT, which keeps r to
differences between samples, there is none here.

The loss that is recorded is the sum. What a mechanism asks to be added to the loss is that of the
second pass, and a mechanism that keeps something from step to step sees both. One that reads no
query has nothing to disturb: its loss counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from cab import Attention, Batch, Pattern, Task
from cab.info import OptionValue
from runners.analysis.calls import changed_queries
from runners.analysis.perturbation import disturbance, query_gradients
from runners.observer import UNSEEN, Observer
from runners.replicas import Replicas
from runners.report import Report
from runners.training import ALONE, Trained, train
from runners.wiring import WiredExperiment

WEIGHT = 1.0
"""lambda"""


class AdversarialExperiment(WiredExperiment):
    """An experiment whose candidate is trained against disturbed queries; built, tested and read
    against references as any other.
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
        size: float,
    ) -> None:
        super().__init__(task, pattern, candidate, softmax, options, seed, device)
        self._size = size

    def train(
        self, report: Report, replicas: Replicas = ALONE, observer: Observer = UNSEEN
    ) -> Trained:
        """See `runners.training.train`."""
        candidates = self.slots.candidates
        task = cast("Task", Regularised(self.task, candidates, self._size))
        return train(task, self.model, candidates, self.seed, report, replicas, observer)


class Regularised:
    """A task whose training loss has the adversary's added. All else is the task's own: evaluation
    too, which does not come by here.
    """

    def __init__(self, task: Task, candidates: Sequence[Attention], size: float) -> None:
        self._task, self._candidates, self._size = task, candidates, size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """L(q) + lambda L(q + eps |q| r)."""

        def once() -> Tensor:
            return self._task.loss(model, batch)

        clean, directions = query_gradients(once, self._candidates, keep=True)
        with changed_queries(self._candidates, disturbance(directions, self._size)):
            return clean + WEIGHT * once()
