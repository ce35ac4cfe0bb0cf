"""Which of six bodies of text a passage is from, byte by byte (the text task of Long Range Arena).

Long Range Arena classifies film reviews (IMDb) by sentiment, and spam is the other usual choice;
no such corpus of a clear licence is embedded, so the classes are sources: Shakespeare, Moby Dick,
presidents' messages, the Bible, docstrings of Python packages, profiles of countries. Whole works,
chapters, presidents, books, modules and countries are held out. Only letters and blanks are kept
(`tasks.byte_classification.passages`), so that single bytes tell little and words a lot; naive
Bayes on bytes and on pairs of bytes shows how little and how much.

Attention starts as likeness, and positions as faint sinusoids that leave most of a token to its
byte; both for every mechanism alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

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
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.backbones.pooled_encoder import Logits, TokenClassifier
from tasks.byte_classification.passages import (
    SOURCES,
    SYMBOLS,
    even_passages,
    folded_texts,
    naive_bayes,
    random_passages,
    sources_hash,
    unfold,
)
from tasks.evaluation import share
from tasks.pooled_classification.task import PooledClassification


@dataclass(frozen=True)
class _Setting:
    length: int
    """Bytes of a passage."""
    dim: int
    layers: int
    heads: int
    passages: int
    """Evaluated, per split and source."""


_SETTINGS = {
    Scale.TINY: _Setting(64, 32, 1, 4, passages=50),
    Scale.SMALL: _Setting(128, 64, 2, 4, passages=250),
    Scale.BASE: _Setting(1024, 256, 4, 8, passages=100),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=100, batch_size=16, learning_rate=5e-3),
    Scale.SMALL: Recipe(steps=600, batch_size=16, learning_rate=2.5e-3),
    Scale.BASE: Recipe(
        steps=4000,
        batch_size=32,
        learning_rate=5e-4,
        warmup_steps=200,
        evaluations=10,
        precision="bfloat16",
    ),
}

_SHOWN = 12


@register_task(
    TaskInfo(
        id="byte-classification",
        title="Classification of text from bytes",
        description=(
            "Which of six sources a passage is from - Shakespeare, Moby Dick, presidents' "
            "messages, the Bible, docstrings, country profiles - as 128 bytes at scale small, "
            "1024 at base; letters and blanks only. Whole documents are held out. Sources of the "
            "embedded texts stand in for Long Range Arena's film reviews and for spam. Pooled by "
            "the mean."
        ),
        backbones={Pattern.NONCAUSAL_SELF: "pooled-encoder"},
        metrics=(
            Metric("accuracy", "1", higher_is_better=True, help="Share of correct sources."),
            Metric(
                "accuracy_ep",
                "1",
                higher_is_better=True,
                help="By an efficient probe of the trained encoder's tokens.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="embedded-texts",
        paper="Tay et al., Long Range Arena: A Benchmark for Efficient Transformers",
        url="https://arxiv.org/abs/2011.04006",
        probe=True,
        references=(
            Reference(
                "naive-bayes-bigrams",
                metric="accuracy",
                help="Naive Bayes on the pairs of neighbouring bytes.",
            ),
            Reference(
                "naive-bayes-bytes", metric="accuracy", help="Naive Bayes on the bytes alone."
            ),
            Reference("chance", metric="accuracy", help="A source named at random."),
        ),
    )
)
class ByteClassification(PooledClassification):
    """Sources of passages, one token a byte, the tokens pooled."""

    classes = tuple(source.name for source in SOURCES)

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = _SETTINGS[scale]
        if scale is Scale.BASE:
            self.evaluation_batch = 32

    @property
    def data_hash(self) -> str:
        """Hash of the texts and of how passages are cut from them."""
        text = f"{sources_hash()} {self.setting.length} {self.setting.passages}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        return self.setting.length, self.setting.length

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        return TokenClassifier(
            slots,
            tokens=SYMBOLS,
            classes=len(self.classes),
            length=self.setting.length,
            dim=self.setting.dim,
            heads=self.setting.heads,
            layers=self.setting.layers,
            position_amplitude=0.5,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform passages of uniformly drawn sources."""
        tokens, labels = random_passages(
            folded_texts("train"), self.setting.length, self.recipe.batch_size, generator
        )
        return {"tokens": tokens, "labels": labels}

    def classify(self, model: nn.Module, batch: Batch) -> Logits:
        """See `PooledClassification.classify`."""
        return model(batch["tokens"])

    def examples(self, split: Split, seed: int) -> Batch:
        """See `PooledClassification.examples`: disjoint passages, as many of every source; none is
        drawn.
        """
        tokens, labels = even_passages(
            folded_texts(split), self.setting.length, self.setting.passages
        )
        return {"tokens": tokens, "labels": labels}

    def references(self, seed: int) -> dict[str, float]:
        """Naive Bayes with counts of the training text plus one, on the test passages."""
        train, test = folded_texts("train"), self.examples("test", seed)
        values = {"chance": 1 / len(self.classes)}
        for order, name in ((1, "naive-bayes-bytes"), (2, "naive-bayes-bigrams")):
            values[name] = share(naive_bayes(train, order, test["tokens"]) == test["labels"])
        return values

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Passages with their sources, and which are taken for which."""
        examples = self.examples("test", seed)
        step = len(examples["labels"]) // _SHOWN
        shown = {name: tensor[::step][:_SHOWN] for name, tensor in examples.items()}
        predicted, _ = self.predictions(model, shown)
        pieces = [
            f"source     {self.classes[label]}\npredicted  {self.classes[guess]}\n{unfold(tokens)}"
            for label, guess, tokens in zip(
                shown["labels"].tolist(), predicted.tolist(), shown["tokens"], strict=True
            )
        ]
        caption = "Test passages, their sources, and what mean pooling says."
        return [
            pictures.text("passages", caption, "\n\n".join(pieces)),
            self.confusion(model, seed),
        ]
