"""Pooled classification read out by efficient probing: the encoder is trained through it.

The readouts of a `tasks.backbones.pooled_encoder.PooledEncoder` change places. Efficient probing
(Psomas et al., arXiv 2506.10178; `tasks.backbones.readout`) is what the loss goes through and what
the accuracy is of; mean pooling is trained beside it without a gradient into the encoder. Data,
encoder, initial weights and recipe are those of the task with the mean, so that the two differ in
the readout alone.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from cab import Artifact, Slots
from cab.task_contract import Split
from tasks.backbones.pooled_encoder import PooledEncoder
from tasks.pooled_classification.task import PooledClassification


class ReadByProbe(PooledClassification):
    """Stands before a pooled task among the bases of a class.

    In `PooledClassification` and `Logits` the place of mean pooling is then the probe's.
    """

    def build(self, slots: Slots) -> nn.Module:
        """The task's model, with its readouts in each other's place."""
        model = super().build(slots)  # type: ignore[safe-super]
        for module in model.modules():
            if isinstance(module, PooledEncoder):
                module.mean, module.probe = module.probe, module.mean  # type: ignore[assignment]
        return model

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """``accuracy`` of the probe and ``accuracy_mean`` of mean pooling beside it."""
        scores = super().evaluate(model, split, seed)
        return {"accuracy": scores["accuracy"], "accuracy_mean": scores["accuracy_ep"]}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """The task's, which say what the probe says."""
        return [
            replace(made, caption=made.caption.replace("mean pooling", "the efficient probe"))
            for made in super().artifacts(model, seed)
        ]
