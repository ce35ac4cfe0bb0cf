"""Language modelling: predict the next character of a book (CAB section 4, LM on PG-19).

A GPT-2 decoder reads windows of characters. Whole books are held out, so nothing of a test book
is seen in training. CAB's readout is perplexity; the headline here is bits per byte, its
logarithm per UTF-8 byte, which stays comparable when the vocabulary changes.

At the small scales a run ends while the model still learns to use its nearest neighbours, so a
mechanism that starts out local is ahead of softmax; what lies far back hardly counts yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cab import (
    Artifact,
    Batch,
    Metric,
    Pattern,
    Recipe,
    Scale,
    Slots,
    Task,
    TaskInfo,
    register_task,
)
from cab.task_contract import Split
from tasks import pictures
from tasks.backbones.token_transformer import TokenTransformer
from tasks.data.text import load_corpus


@dataclass(frozen=True)
class _Size:
    length: int
    """Characters predicted per window."""
    dim: int
    layers: int
    windows: Mapping[str, int]
    """Windows evaluated per split."""


_SIZES = {
    Scale.TINY: _Size(64, 64, 2, MappingProxyType({"validation": 64, "test": 128})),
    Scale.SMALL: _Size(128, 64, 2, MappingProxyType({"validation": 64, "test": 256})),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=150, batch_size=16, learning_rate=1e-2),
    Scale.SMALL: Recipe(steps=700, batch_size=8, learning_rate=1e-2),
}

_HEADS = 4
_EXPANSION = 2
_EVALUATION_BATCH = 64
_CONTINUATIONS, _DRAWN = 3, 160


@register_task(
    TaskInfo(
        id="language-modeling",
        title="Language modelling",
        description="Next character of the World English Bible, whole books held out.",
        backbones={Pattern.CAUSAL_SELF: "gpt2"},
        metrics=(
            Metric(
                "bits_per_byte",
                "bit/byte",
                higher_is_better=False,
                help="Cross-entropy of the next character, per UTF-8 byte of the text.",
            ),
            Metric(
                "perplexity",
                "",
                higher_is_better=False,
                help="Perplexity per character; the same information as bits per byte.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL),
        dataset="web-bible",
        data_dir="a folder with train/*.txt, validation/*.txt and test/*.txt, one UTF-8 file per "
        "document, as in PG-19; files are read in the order of their names, up to 16 million "
        "characters of train and 1 million of each other split",
        paper="Zhang et al., CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",
        url="https://arxiv.org/abs/2210.07661",
    )
)
class LanguageModeling(Task):
    """Character-level GPT-2 on held-out books."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self._size = _SIZES[scale]
        self.corpus = load_corpus(self.info.dataset, data_dir, window=self._size.length + 1)

    @property
    def data_hash(self) -> str:
        """See `cab.Task.data_hash`."""
        return self.corpus.digest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        return self._size.length, self._size.length

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size = self.corpus.vocabulary.size
        return TokenTransformer(
            slots,
            self.pattern,
            tokens=size,
            classes=size,
            length=self._size.length,
            dim=self._size.dim,
            heads=_HEADS,
            layers=self._size.layers,
            expansion=_EXPANSION,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows: ``window`` (B, L + 1) ids, each character but the first a target."""
        length = self._size.length + 1
        text = self.corpus.train
        starts = text.random_starts(length, self.recipe.batch_size, generator)
        return {"window": text.windows(starts, length)}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per character."""
        window = batch["window"]
        logits = model(window[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over disjoint windows, spread evenly; a character's context is its window so far."""
        length = self._size.length + 1
        text = self.corpus.validation if split == "validation" else self.corpus.test
        starts = text.even_starts(length, self._size.windows[split])
        device = next(model.parameters()).device
        nats = 0.0
        for part in torch.split(starts, _EVALUATION_BATCH):
            batch = {"window": text.windows(part, length).to(device)}
            nats += self.loss(model, batch).item() * len(part) * self._size.length
        predicted = starts[:, None] + torch.arange(1, length)
        return {
            "bits_per_byte": nats / math.log(2) / int(text.utf8_bytes[predicted].sum()),
            "perplexity": math.exp(nats / predicted.numel()),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Continuations of test text, one character after the other, drawn from the model."""
        length, text = self._size.length, self.corpus.test
        prompt_length = length // 2
        starts = text.even_starts(length + 1, _CONTINUATIONS)
        tokens = text.windows(starts, prompt_length).to(next(model.parameters()).device)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(_DRAWN):
            # The whole window is fed again at each step, so that any mechanism takes part.
            odds = model(tokens[:, -length:])[:, -1].float().softmax(-1).cpu()
            drawn = torch.multinomial(odds, 1, generator=generator)
            tokens = torch.cat([tokens, drawn.to(tokens.device)], dim=1)
        decode = self.corpus.vocabulary.decode
        pieces = (
            f"{decode(row[:prompt_length])}|{decode(row[prompt_length:])}" for row in tokens.cpu()
        )
        caption = f"Test text, and after the bar {_DRAWN} characters drawn from the model."
        return [pictures.text("continuations", caption, "\n\n---\n\n".join(pieces))]
