"""What the tasks that classify a whole sequence share, in the manner of Long Range Arena (Tay et
al. 2021): a noncausal encoder, its tokens pooled, the share of correct classes.

One cell reports two readouts. The encoder is trained through mean pooling, so its accuracy is the
headline. An efficient probe (`tasks.backbones.readout`) is trained beside it on the same tokens
without a gradient into them; its accuracy tells what mean pooling leaves in the tokens.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import Artifact, Batch, Task
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.backbones.pooled_encoder import Logits
from tasks.evaluation import beside, parts, share

PROBE_WEIGHT = 1e-3
"""Of the probe's loss. Adam's steps do not depend on the scale of a gradient, but the clipping of
the joint norm would let the probe shorten the encoder's steps; so its share is made negligible."""


class PooledClassification(Task):
    """Sequences in one of some classes; a subclass has the data and the embedding."""

    classes: tuple[str, ...]
    """Names of the classes, by label"""

    evaluation_batch = 128
    """Sequences evaluated at once"""

    @abstractmethod
    def classify(self, model: nn.Module, batch: Batch) -> Logits:
        """Both readouts of a batch; its ``labels`` are not read."""

    @abstractmethod
    def examples(self, split: Split, seed: int) -> Batch:
        """All sequences of a split, row by row, with their ``labels`` (N,).

        Args:
            split: validation or test.
            seed: as in `cab.Task.evaluate`; of what is drawn.
        """

    def groups(self, examples: Batch) -> dict[str, Tensor]:
        """(N,) bool by the suffix of a metric ``accuracy_...`` that counts these rows only."""
        return {}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of mean pooling in nats, and a trifle of the probe's."""
        logits = self.classify(model, batch)
        probe = F.cross_entropy(logits.probe, batch["labels"])
        return F.cross_entropy(logits.mean, batch["labels"]) + PROBE_WEIGHT * probe

    def predictions(self, model: nn.Module, examples: Batch) -> tuple[Tensor, Tensor]:
        """(N,) classes by mean pooling and by the probe, on the CPU."""
        chosen = []
        for part in parts(examples, self.evaluation_batch):
            logits = self.classify(model, beside(model, part))
            chosen.append(torch.stack([x.argmax(-1).cpu() for x in logits]))
        mean, probe = torch.cat(chosen, dim=1)
        return mean, probe

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Shares of correct classes; see `examples` and `groups`."""
        examples = self.examples(split, seed)
        mean, probe = (x == examples["labels"] for x in self.predictions(model, examples))
        scores = {"accuracy": share(mean), "accuracy_ep": share(probe)}
        for name, members in self.groups(examples).items():
            if members.any():
                scores[f"accuracy_{name}"] = share(mean[members])
        return scores

    def confusion(self, model: nn.Module, seed: int) -> Artifact:
        """Which classes are taken for which, of the test split by mean pooling."""
        examples = self.examples("test", seed)
        predicted, _ = self.predictions(model, examples)
        count = len(self.classes)
        pairs = torch.bincount(examples["labels"] * count + predicted, minlength=count**2)
        shares = pairs.view(count, count) / pairs.view(count, count).sum(1, True).clamp(min=1)
        named = "; ".join(f"{i} {name}" for i, name in enumerate(self.classes))
        listed = "" if all(str(i) == name for i, name in enumerate(self.classes)) else f" ({named})"
        # The heat map has its first row at the bottom; a confusion matrix is read from the top.
        picture = pictures.heat_map(shares.flip(0).double().numpy())
        return pictures.image(
            "confusion",
            f"Test split: true classes from top to bottom, predicted ones from left to right"
            f"{listed}; white is the largest share of a class.",
            picture,
            zoom=16,
        )
