"""Digits from their pixels, one token a pixel (the image task of Long Range Arena).

Long Range Arena reads grey CIFAR-10 pictures of 32 x 32. Here they are the embedded digits of
MNIST, shrunk to 7 x 7 at scale small and read whole, 784 pixels, at base; the context has the shape
of the grid. Digits are shifted at random, in training and, once and for all, in validation and
test: see `tasks.pixel_classification.pixels` for why. Ridge regression shows what the sum over
single pixels is worth on the same pictures.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Reference,
    Scale,
    Slots,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.backbones.pooled_encoder import Logits
from tasks.data.embedded import dataset
from tasks.data.images import digits
from tasks.evaluation import share
from tasks.pixel_classification.model import PixelClassifier
from tasks.pixel_classification.pixels import ridge_classifier, shift, shrink
from tasks.pooled_classification.task import PooledClassification


@dataclass(frozen=True)
class _Setting:
    side: int
    shift: int
    """Largest shift of a digit, in pixels of the original"""
    dim: int
    layers: int
    heads: int


_SETTINGS = {
    Scale.TINY: _Setting(7, 4, 32, 1, 4),
    Scale.SMALL: _Setting(7, 4, 64, 2, 4),
    Scale.BASE: _Setting(28, 4, 192, 6, 6),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=60, batch_size=32, learning_rate=5e-3),
    Scale.SMALL: Recipe(steps=600, batch_size=32, learning_rate=4e-3),
    Scale.BASE: Recipe(
        steps=4000,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=200,
        evaluations=10,
        precision="bfloat16",
    ),
}

_RIDGE_COPIES, _RIDGE_PENALTY = 8, 1e-3
_SHOWN_ROWS, _SHOWN_COLUMNS = 4, 12


@register_task(
    TaskInfo(
        id="pixel-classification",
        title="Classification of digits from pixels",
        description=(
            "Which digit a picture shows, from its grey levels as a sequence: 7 x 7 at scale "
            "small, 28 x 28 at base. Digits of MNIST, shifted at random by up to 4 of 28 pixels. "
            "Pooled by the mean."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "pooled-encoder"},
        metrics=(
            Metric("accuracy", "1", higher_is_better=True, help="Share of correct digits."),
            Metric(
                "accuracy_ep",
                "1",
                higher_is_better=True,
                help="By an efficient probe of the trained encoder's tokens.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="mnist-5k",
        paper="Tay et al., Long Range Arena: A Benchmark for Efficient Transformers",
        url="https://arxiv.org/abs/2011.04006",
        probe=True,
        references=(
            Reference(
                "ridge-regression",
                metric="accuracy",
                help="Ridge regression on the pixels of eight shifts of every training digit.",
            ),
            Reference("chance", metric="accuracy", help="A digit named at random."),
        ),
    )
)
class PixelClassification(PooledClassification):
    """Digits, one token a pixel, the tokens pooled."""

    classes = tuple("0123456789")

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = _SETTINGS[scale]
        self._images, self._labels = digits("train")
        # Like every statistic, those of the grey levels come from the training split alone.
        grey = shrink(self._images, self.setting.side)
        self._mean, self._deviation = grey.mean(), grey.std()

    @property
    def data_hash(self) -> str:
        """Hash of the digits and of what is done to them."""
        setting = self.setting
        text = f"{dataset('mnist-5k').data_hash} side {setting.side} shift {setting.shift}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        return self.setting.side**2, self.setting.side**2

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return PixelClassifier(
            slots,
            side=setting.side,
            classes=len(self.classes),
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Training digits drawn uniformly, freshly shifted."""
        chosen = torch.randint(len(self._labels), (self.recipe.batch_size,), generator=generator)
        return self._batch(self._images[chosen], self._labels[chosen], generator)

    def classify(self, model: nn.Module, batch: Batch) -> Logits:
        """See `PooledClassification.classify`."""
        return model(batch["pixels"])

    def examples(self, split: Split, seed: int) -> Batch:
        """See `PooledClassification.examples`."""
        return self._batch(*digits(split), seeds.evaluation(seed, split))

    def _batch(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Batch:
        moved = shift(images, self.setting.shift, generator)
        grey = shrink(moved, self.setting.side)
        return {"pixels": (grey - self._mean) / self._deviation, "labels": labels}

    def references(self, seed: int) -> dict[str, float]:
        """Ridge regression in float64 on shifted training digits, applied to the test pictures."""
        copies = self._batch(
            self._images.repeat(_RIDGE_COPIES, 1, 1),
            self._labels.repeat(_RIDGE_COPIES),
            seeds.generator(0, "statistics"),
        )
        weights, intercepts = ridge_classifier(
            copies["pixels"].double(), copies["labels"], len(self.classes), _RIDGE_PENALTY
        )
        test = self.examples("test", seed)
        predicted = (test["pixels"].double() @ weights + intercepts).argmax(1)
        return {
            "ridge-regression": share(predicted == test["labels"]),
            "chance": 1 / len(self.classes),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test pictures that are taken for another digit, and which are taken for which."""
        test = self.examples("test", seed)
        predicted, _ = self.predictions(model, test)
        wrong = (predicted != test["labels"]).nonzero()[:, 0][: _SHOWN_ROWS * _SHOWN_COLUMNS]
        if not len(wrong):
            return [self.confusion(model, seed)]
        grey = test["pixels"][wrong] * self._deviation + self._mean
        tiles = list((grey.view(-1, *(self.setting.side,) * 2) * 255).byte().numpy())
        rows = [tiles[i : i + _SHOWN_COLUMNS] for i in range(0, len(tiles), _SHOWN_COLUMNS)]
        said = " ".join(f"{predicted[i]}" for i in wrong.tolist())
        caption = f"Test pictures that mean pooling takes for other digits, row by row: {said}."
        picture = pictures.image("mistaken", caption, pictures.grid(rows), zoom=4)
        return [picture, self.confusion(model, seed)]
