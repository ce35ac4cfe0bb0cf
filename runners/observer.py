"""Who looks on while a model is trained, without a say in it."""

from __future__ import annotations

from cab import Batch


class Observer:
    """Sees every batch and every loss of a training run; this one does nothing with them."""

    def batch(self, batch: Batch) -> None:
        """A batch was drawn."""

    def loss(self, step: int, value: float) -> None:
        """The task's loss at a step, which counts from 1."""


UNSEEN = Observer()
