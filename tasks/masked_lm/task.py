"""Masked language modelling: recover hidden characters from both sides (CAB section 4, MLM).

A RoBERTa encoder reads windows of characters in which a fifth is replaced by a mask token, always
by that token, and predicts what stood there.

Scale ``paper`` is CAB's geometry and schedule for PG-19 (``--data-dir``): 256 windows of 2048 a
step (8 GPUs of 8 windows, four batches a step), 125,000 steps, 15 % masked. Not as there:

* characters instead of subwords, so that embedding and readout are smaller;
* the mask token always, where RoBERTa leaves a tenth of the targets in place and replaces another
  tenth by random ones: a target in place can be told without any attention;
* pre-norm layers, no norm after the embedding, no hidden layer in the readout;
* the test split is reported as for every task, with the validation split, CAB's, beside it.

On the embedded text it runs, and overfits.
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
from tasks.backbones.multihead import MultiHeadAttention, start_as_copy, start_as_similarity
from tasks.backbones.token_transformer import TokenTransformer
from tasks.data.text_source import WHOLE
from tasks.evaluation import device_of
from tasks.text_windows import TextWindowTask


@dataclass(frozen=True)
class _Size:
    length: int
    """Characters per window."""
    dim: int
    layers: int
    heads: int
    expansion: int
    windows: Mapping[str, int]
    """Windows evaluated per split."""
    masked_share: float = 0.2
    position_base: float = 100.0
    position_amplitude: float = 2.0


_SIZES = {
    Scale.TINY: _Size(64, 64, 2, 4, 2, {"validation": 64, "test": 256}),
    Scale.SMALL: _Size(64, 64, 2, 4, 2, {"validation": 256, "test": 1024}),
    Scale.BASE: _Size(256, 256, 6, 8, 4, {"validation": 256, "test": 1024}),
    Scale.PAPER: _Size(
        2048,
        *(768, 12, 12, 4),
        {"validation": WHOLE, "test": WHOLE},
        masked_share=0.15,
        position_base=1e4,
        position_amplitude=1.0,
    ),
}

_RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=16, learning_rate=6e-3),
    Scale.SMALL: Recipe(steps=800, batch_size=24, learning_rate=6e-3),
    Scale.BASE: Recipe(
        steps=4000,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=200,
        evaluations=10,
        precision="bfloat16",
    ),
    Scale.PAPER: Recipe(
        steps=125_000,
        batch_size=8,
        accumulate=32,
        learning_rate=3e-4,
        warmup_steps=5000,
        schedule="linear",
        final_lr_fraction=0.0,
        evaluations=25,
        precision="bfloat16",
    ),
}

_SHOWN, _SHOWN_CHARACTERS = 4, 256


@register_task(
    TaskInfo(
        id="masked-lm",
        title="Masked language modelling",
        description="Hidden characters of the World English Bible, whole books held out.",
        backbones={Pattern.NONCAUSAL_SELF: "roberta"},
        metrics=(
            Metric(
                "bits_per_masked_character",
                "bit/character",
                higher_is_better=False,
                help="Cross-entropy of the masked characters.",
            ),
            Metric(
                "perplexity",
                "",
                higher_is_better=False,
                help="Perplexity per masked character; the same information as the bits.",
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
class MaskedLanguageModeling(TextWindowTask):
    """Character-level RoBERTa on held-out books."""

    @classmethod
    def longest_window(cls, scale: Scale) -> int:
        """See `TextWindowTask.longest_window`."""
        return _SIZES[scale].length

    @property
    def _size(self) -> _Size:
        return _SIZES[self.scale]

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return _RECIPES[self.scale]

    @property
    def mask_id(self) -> int:
        """The input id that stands for a hidden character; it is never an output."""
        return self.corpus.vocabulary.size

    def length(self) -> tuple[int, int]:
        """See `cab.Task.length`."""
        return self._size.length, self._size.length

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`.

        Sharp positions, one matrix for queries and keys, and values passed through: without all
        three the model stays at the unigram plateau for longer than the run lasts.
        """
        size = self.corpus.vocabulary.size
        model = TokenTransformer(
            slots,
            self.pattern,
            tokens=size + 1,
            classes=size,
            length=self._size.length,
            dim=self._size.dim,
            heads=self._size.heads,
            layers=self._size.layers,
            expansion=self._size.expansion,
            position_base=self._size.position_base,
            position_amplitude=self._size.position_amplitude,
        )
        for module in model.modules():
            if isinstance(module, MultiHeadAttention):
                start_as_similarity(module)
                start_as_copy(module)
        return model

    def mask(self, window: Tensor, generator: torch.Generator) -> Batch:
        """Hide characters of a window.

        Args:
            window: (B, L) ids.
            generator: draws which M positions of each row to hide; the scale sets M / L.

        Returns:
            ``tokens`` (B, L) with `mask_id` in the hidden places, ``masked`` (B, M) the hidden
            positions and ``targets`` (B, M) what stood there.
        """
        count = round(self._size.masked_share * window.shape[1])
        masked = torch.rand(window.shape, generator=generator).topk(count).indices
        return {
            "tokens": window.scatter(1, masked, self.mask_id),
            "masked": masked,
            "targets": window.gather(1, masked),
        }

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows under fresh masks; see `mask`."""
        return self.mask(self.random_windows(self._size.length, generator), generator)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per masked character."""
        logits = model(batch["tokens"], batch["masked"])
        return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Over disjoint windows, spread evenly, under masks that are the same for all."""
        generator = seeds.evaluation(seed, split)
        device = device_of(model)
        size = self._size
        total, windows = 0.0, 0
        for starts, window in self.even_windows(split, size.length, size.windows[split]):
            hidden = self.mask(window, generator)
            batch = {name: tensor.to(device) for name, tensor in hidden.items()}
            total += self.loss(model, batch).item() * len(starts)
            windows += len(starts)
        nats = total / windows
        return {"bits_per_masked_character": nats / math.log(2), "perplexity": math.exp(nats)}

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test windows with their hidden characters, and the likeliest in their places."""
        text, length = self.corpus.test, min(self._size.length, _SHOWN_CHARACTERS)
        window = text.windows(text.even_starts(length, _SHOWN), length)
        hidden = self.mask(window, seeds.evaluation(seed, "test"))
        device = device_of(model)
        logits = model(hidden["tokens"].to(device), hidden["masked"].to(device))
        guessed = window.scatter(1, hidden["masked"], logits.argmax(-1).cpu())
        decode = self.corpus.vocabulary.decode
        pieces = []
        for row, masked in zip(range(len(window)), hidden["masked"], strict=True):
            shown = list(decode(window[row]).replace("\n", " "))
            for place in masked.tolist():
                shown[place] = "_"
            pieces.append(
                f"hidden   {''.join(shown)}\n"
                f"guessed  {decode(guessed[row]).replace(chr(10), ' ')}\n"
                f"text     {decode(window[row]).replace(chr(10), ' ')}"
            )
        caption = "Test text with hidden characters (_), the likeliest in their places, the truth."
        return [pictures.text("filled-in", caption, "\n\n".join(pieces))]
