"""Mechanisms that take their queries and keys from elsewhere are wired into the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from cab import Attention, Task
from runners.experiment import Experiment


@runtime_checkable
class Wired(Protocol):
    """A class of attentions that hooks into the model around its slots. `wire` is part of the hash
    of its code.
    """

    @classmethod
    def wire(cls, model: nn.Module, slots: Sequence[Attention], task: Task) -> None:
        """Called once after a model was built.

        Args:
            model: on its device.
            slots: all that hold the candidate, in the order in which they were built: with a
                hybrid of other classes too.
            task: that the model was built for.

        Raises:
            NotImplementedError: it cannot stand in this model.
        """


class WiredExperiment(Experiment):
    """An experiment whose candidate may reach beyond its slots."""

    def build(self) -> None:
        """See `runners.experiment.Experiment.build`.

        Raises:
            UnsupportedError: the candidate adds more parameters than the task allows.
            NotImplementedError: the candidate cannot be wired into this model.
        """
        super().build()
        slots = self.slots.candidates
        for cls in dict.fromkeys(map(type, slots)):
            if isinstance(cls, Wired):
                cls.wire(self.model, slots, self.task)
