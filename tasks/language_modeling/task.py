"""Language modelling: predict the next character of a book (CAB section 4, LM on PG-19).

A GPT-2 decoder reads windows of characters. Whole books are held out, so nothing of a test book
is seen in training. CAB's readout is perplexity; the headline here is bits per byte, its
logarithm per UTF-8 byte, which stays comparable when the vocabulary changes.

At the small scales a run ends while the model still learns to use its nearest neighbours, so a
mechanism that starts out local is ahead of softmax; what lies far back hardly counts yet.

Length extrapolation (CAB section 5) is measured on windows that are longer than those trained on.
Positions are trained parameters that start as sinusoids. Those beyond the trained length were never
trained; they are the sinusoid's next values, the only choice that adds no fitted constant. So the
numbers tell what mechanism *and* positions make of unseen lengths, alike for every mechanism.

Scale ``paper`` is CAB's geometry and schedule for PG-19 (``--data-dir``): 16 windows of 8192 a step
(8 GPUs of one window, two batches a step), 125,000 steps. The vocabulary is this suite's, at most
256 characters where CAB has 50,257 subwords, so that a window is about a quarter of the text and
the perplexity is per character; embedding and readout are smaller for it, the layers are the same.
The norm of the gradient is clipped as at the other scales. On the embedded text it runs, and
overfits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.backbones.token_transformer import TokenTransformer
from tasks.data.text_source import WHOLE
from tasks.evaluation import device_of
from tasks.text_windows import TextWindowTask


@dataclass(frozen=True)
class _Size:
    length: int
    """Characters predicted per window."""
    dim: int
    layers: int
    heads: int
    expansion: int
    windows: Mapping[str, int]
    """Windows evaluated per split."""


_SIZES = {
    Scale.TINY: _Size(64, 64, 2, 4, 2, {"validation": 64, "test": 128}),
    Scale.SMALL: _Size(128, 64, 2, 4, 2, {"validation": 64, "test": 256}),
    Scale.BASE: _Size(512, 256, 6, 8, 4, {"validation": 128, "test": 512}),
    Scale.PAPER: _Size(8192, 768, 12, 12, 4, {"validation": 256, "test": WHOLE}),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=150, batch_size=16, learning_rate=1e-2),
    Scale.SMALL: Recipe(steps=700, batch_size=8, learning_rate=1e-2),
    Scale.BASE: Recipe(
        steps=3000,
        batch_size=32,
        learning_rate=1e-3,
        warmup_steps=200,
        evaluations=10,
        precision="bfloat16",
    ),
    Scale.PAPER: Recipe(
        steps=125_000,
        batch_size=1,
        accumulate=16,
        learning_rate=5e-4,
        warmup_steps=10_000,
        betas=(0.9, 0.999),
        schedule="inverse-sqrt",
        evaluations=25,
        precision="bfloat16",
    ),
}

TWICE, LONGEST = 2, 4
"""Multiples of the trained length: of ``bits_per_byte_2x``, and the end of the curve"""
_CURVE = (1 / 4, 1 / 2, 1, TWICE, LONGEST)

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
            Metric(
                "bits_per_byte_2x",
                "bit/byte",
                higher_is_better=False,
                help="Bits per byte in windows of twice the trained length, whose later positions "
                "no training step has seen.",
                headline=False,
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE, Scale.PAPER),
        dataset="web-bible",
        data_dir="a folder with train/*.txt, validation/*.txt and test/*.txt, one UTF-8 file per "
        "document, as in PG-19; files are read in the order of their names, all of them at "
        "scale paper, otherwise up to 16 million characters of train and 1 million of each other "
        "split",
        paper="Zhang et al., CAB: Comprehensive Attention Benchmarking on Long Sequence Modeling",
        url="https://arxiv.org/abs/2210.07661",
    )
)
class LanguageModeling(TextWindowTask):
    """Character-level GPT-2 on held-out books."""

    @classmethod
    def longest_window(cls, scale: Scale) -> int:
        """See `TextWindowTask.longest_window`."""
        return TWICE * _SIZES[scale].length + 1

    @property
    def _size(self) -> _Size:
        return _SIZES[self.scale]

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
            heads=self._size.heads,
            layers=self._size.layers,
            expansion=self._size.expansion,
            longest=LONGEST * self._size.length,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows: ``window`` (B, L + 1) ids, each character but the first a target."""
        return {"window": self.random_windows(self._size.length + 1, generator)}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per character."""
        window = batch["window"]
        logits = model(window[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("window",)

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, L, V) logits of the next character."""
        return model(batch["window"][:, :-1])

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over disjoint windows, spread evenly; a character's context is its window so far."""
        bits, perplexity = self._scores(model, split, self._size.length)
        longer, _ = self._scores(model, split, TWICE * self._size.length)
        return {"bits_per_byte": bits, "perplexity": perplexity, "bits_per_byte_2x": longer}

    def _scores(self, model: nn.Module, split: Split, length: int) -> tuple[float, float]:
        """Bits per byte and perplexity in windows of a length; about as much text for any."""
        count = max(1, self._size.windows[split] * self._size.length // length)
        device = device_of(model)
        utf8_bytes = self.held_out(split).utf8_bytes
        nats, windows, predicted = 0.0, 0, 0
        for starts, window in self.even_windows(split, length + 1, count):
            nats += self.loss(model, {"window": window.to(device)}).item() * len(starts) * length
            windows += len(starts)
            predicted += sum(int(utf8_bytes[i + 1 : i + 1 + length].sum()) for i in starts)
        return nats / math.log(2) / predicted, math.exp(nats / (windows * length))

    def extrapolation(self, model: nn.Module) -> dict[float, float]:
        """Bits per byte of test text by length of the window, in trained lengths."""
        lengths = {multiple: round(multiple * self._size.length) for multiple in _CURVE}
        held = len(self.corpus.test)
        return {
            multiple: self._scores(model, "test", length)[0]
            for multiple, length in lengths.items()
            if length < held
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Continuations of test text, drawn from the model, and the curve over lengths."""
        return [self._continuations(model, seed), self._curve(model)]

    def _curve(self, model: nn.Module) -> Artifact:
        bits = self.extrapolation(model)
        return pictures.lines(
            "length-extrapolation",
            f"Test bits per byte by window, trained at {self._size.length} characters (0 on the "
            "axis); further right the positions are untrained.",
            {"test text": {"bits per byte": list(bits.values())}},
            x="window: trained length times 2 to the power of ...",
            y="bit/byte",
            start={"bits per byte": round(math.log2(min(bits)))},
        )

    def _continuations(self, model: nn.Module, seed: int) -> Artifact:
        """Of three test texts, one character after the other."""
        length, text = self._size.length, self.corpus.test
        prompt_length = length // 2
        starts = text.even_starts(length + 1, _CONTINUATIONS)
        tokens = text.windows(starts, prompt_length).to(device_of(model))
        generator = seeds.evaluation(seed, "test", "continuations")
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
        return pictures.text("continuations", caption, "\n\n---\n\n".join(pieces))
