"""The task ``vowel-restoration``: write a text from what is left of it without its vowels.

As for scripts that leave vowels out. About a third of the characters of English are vowels; which
ones stood there follows from the consonants around, on both sides, so that a decoder must know
which consonant is next and what follows it. The place of a consonant in the text is given as its
number times the mean rate of the training text, which says nothing of where the vowels of this
text were.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from tasks.backbones.placed_encoder_decoder import PlacedEncoderDecoder, Size
from tasks.sequence_transduction import (
    FIRST_TOKEN,
    TransductionTask,
    character_error_rate,
    target_tokens,
    token_losses,
)
from tasks.tts.autoregressive import sinusoid_at
from tasks.vowel_restoration.dictionary import Dictionary
from tasks.vowel_restoration.text import Consonants, decode, load

POSITION_BASE = 300.0

_SHOWN = 5


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    length: int
    """Characters of a window"""
    size: Size
    evaluated: Mapping[str, int]
    """Windows per split"""
    decoded: int
    """Test windows that are decoded"""


SETTINGS = {
    Scale.TINY: Setting(
        24,
        Size(dim=32, heads=4, encoder=1, decoder=1, aligned=False),
        {"validation": 64, "test": 128},
        decoded=16,
    ),
    Scale.SMALL: Setting(
        48,
        Size(dim=64, heads=4, encoder=2, decoder=2, aligned=False),
        {"validation": 256, "test": 512},
        decoded=64,
    ),
    Scale.BASE: Setting(
        128,
        Size(dim=256, heads=8, encoder=3, decoder=3, expansion=4, aligned=False),
        {"validation": 512, "test": 1024},
        decoded=256,
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=250, batch_size=16, learning_rate=5e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=800, batch_size=16, learning_rate=8e-3),
    Scale.BASE: Recipe(
        steps=6000,
        batch_size=64,
        learning_rate=5e-4,
        warmup_steps=300,
        evaluations=8,
        precision="bfloat16",
    ),
}


@register_task(
    TaskInfo(
        id="vowel-restoration",
        title="Vowel restoration",
        description="Text of the World English Bible from its consonants, spaces and marks, "
        "character by character; whole books are held out. With the control none the decoder sees "
        "only its own text so far.",
        backbones={Pattern.CAUSAL_CROSS: "placed-encoder-decoder"},
        metrics=(
            Metric(
                "nll",
                "nat/character",
                higher_is_better=False,
                help="Negative log-likelihood of the text, teacher-forced, per character.",
            ),
            Metric(
                "cer",
                "%",
                higher_is_better=False,
                help="Character error rate of greedy outputs (16 test windows at scale tiny, 64 at "
                "small, 256 at base).",
                headline=False,
            ),
        ),
        references=(
            Reference("consonants", "cer", "The source as it is: the error that is to be mended."),
            Reference(
                "dictionary",
                "cer",
                "For every word the commonest one of the training text with the same consonants.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="web-bible",
    )
)
class VowelRestoration(TransductionTask):
    """Consonants to text."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.corpus = load(self.info.dataset)
        self.consonants = Consonants(self.corpus)
        self.decoded = self.setting.decoded

    @property
    def data_hash(self) -> str:
        """Hash of the text."""
        return self.corpus.digest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    @property
    def written(self) -> tuple[int, int]:
        """See `TransductionTask.written`."""
        return self.setting.length, self.setting.length

    def length(self) -> tuple[int, int]:
        """Characters of a window; a source has none beyond them."""
        return self.setting.length, self.setting.length

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size = self.setting.size
        characters = torch.arange(float(self.setting.length))
        rate = 1 / (1 - self.consonants.share)
        return PlacedEncoderDecoder(
            slots,
            size,
            tokens=FIRST_TOKEN + self.corpus.vocabulary.size - 1,
            features=None,
            source_places=sinusoid_at(rate * characters, size.dim, POSITION_BASE),
            target_places=sinusoid_at(characters, size.dim, POSITION_BASE),
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Windows from uniform places of the training text."""
        text, length = self.corpus.train, self.setting.length
        starts = text.random_starts(length, self.recipe.batch_size, generator)
        return self.consonants.batch(text.windows(starts, length))

    def problems(self, split: Split, seed: int) -> Batch:
        """Disjoint windows, spread evenly over the split; the seed has no say."""
        text = self.corpus.validation if split == "validation" else self.corpus.test
        length = self.setting.length
        starts = text.even_starts(length, self.setting.evaluated[split])
        return self.consonants.batch(text.windows(starts, length))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihood of a split; on the test split also errors of greedy outputs."""
        scores = {"nll": token_losses(model, self.problems(split, seed)).mean().item()}
        if split == "test":
            problems = self.decoded_problems(seed)
            texts = self._texts(self.outputs(model, problems))
            scores["cer"] = character_error_rate(texts, self._texts(target_tokens(problems)))
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """See `cab.Task.references`; on the windows that are decoded."""
        problems = self.decoded_problems(seed)
        texts = self._texts(target_tokens(problems))
        sources = self._texts(problems["source"].tolist())
        dictionary = Dictionary(self.corpus.vocabulary.decode(self.corpus.train.ids))
        return {
            "consonants": character_error_rate(sources, texts),
            "dictionary": character_error_rate(map(dictionary.restored, sources), texts),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few test windows, restored greedily."""
        problems = self.decoded_problems(seed, _SHOWN)
        pieces = (
            f"source   {source}\nrestored {restored}\ntext     {text}"
            for source, restored, text in zip(
                self._texts(problems["source"].tolist()),
                self._texts(self.outputs(model, problems)),
                self._texts(target_tokens(problems)),
                strict=True,
            )
        )
        caption = "Test text without its vowels, restored by greedy decoding, and as it was."
        return [pictures.text("restored", caption, "\n\n".join(pieces))]

    def _texts(self, rows: list[list[int]]) -> list[str]:
        return [decode(self.corpus, row) for row in rows]
