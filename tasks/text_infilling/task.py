"""The task ``text-infilling``: hidden characters of a text from those left visible.

Windows of 64 characters of the World English Bible at scale small, 13 of them hidden, drawn anew
for every window and step; whole books are held out. Hidden characters are queries that know their
place alone and do not see each other, so without attention the answer is how often characters
occur. `masked-lm` asks the same of an encoder over all characters, in self attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
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
    Reference,
    Scale,
    Slots,
    TaskInfo,
    register_task,
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.evaluation import answers
from tasks.problems.hidden import draw_hidden, filled, hide
from tasks.text_infilling.model import CharacterReader
from tasks.text_infilling.predictors import letter_frequencies, markov, transitions
from tasks.text_windows import TextWindowTask

HIDDEN_SHARE = 0.2
"""Of the characters"""


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    length: int
    """Characters of a window"""
    dim: int
    heads: int
    layers: int
    windows: Mapping[Split, int]
    """Windows evaluated"""

    @property
    def hidden(self) -> int:
        """Characters hidden of a window."""
        return round(HIDDEN_SHARE * self.length)


SETTINGS = {
    Scale.TINY: Setting(32, 32, 4, layers=1, windows={"validation": 64, "test": 256}),
    Scale.SMALL: Setting(64, 64, 4, layers=2, windows={"validation": 256, "test": 1024}),
    Scale.BASE: Setting(256, 256, 8, layers=6, windows={"validation": 256, "test": 1024}),
}

RECIPES = {
    Scale.TINY: Recipe(steps=500, batch_size=16, learning_rate=1e-2),
    Scale.SMALL: Recipe(steps=2000, batch_size=16, learning_rate=5e-3),
    Scale.BASE: Recipe(
        steps=8000,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=200,
        evaluations=10,
        precision="bfloat16",
    ),
}

SHOWN, SHOWN_CHARACTERS = 6, 256


@register_task(
    TaskInfo(
        id="text-infilling",
        title="Text infilling",
        description="Hidden characters of the World English Bible, whole books held out, from the "
        "visible ones: 13 of 64 characters are hidden (scale small), at places drawn for every "
        "window. The control none answers how often characters occur.",
        backbones={Pattern.NONCAUSAL_CROSS: "character-reader"},
        metrics=(
            Metric(
                "bits_per_hidden_character",
                "bit/character",
                higher_is_better=False,
                help="Cross-entropy of the hidden characters.",
            ),
            Metric(
                "accuracy",
                "",
                higher_is_better=True,
                help="Share of hidden characters for which the likeliest one is right.",
                headline=False,
            ),
        ),
        references=(
            Reference(
                "letter-frequencies",
                "bits_per_hidden_character",
                "How often characters occur in the training text.",
            ),
            Reference(
                "markov",
                "bits_per_hidden_character",
                "A Markov chain of the pairs in the training text, given all visible characters.",
            ),
            Reference("markov-accuracy", "accuracy", "The same chain's likeliest character."),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="web-bible",
    )
)
class TextInfilling(TextWindowTask):
    """Text with holes."""

    @classmethod
    def longest_window(cls, scale: Scale) -> int:
        """See `TextWindowTask.longest_window`."""
        return SETTINGS[scale].length

    @property
    def setting(self) -> Setting:
        """Sizes at this scale."""
        return SETTINGS[self.scale]

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    def length(self) -> tuple[int, int]:
        """Hidden and visible characters."""
        return self.setting.hidden, self.setting.length - self.setting.hidden

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        setting = self.setting
        return CharacterReader(
            slots,
            characters=self.corpus.vocabulary.size,
            length=setting.length,
            dim=setting.dim,
            heads=setting.heads,
            layers=setting.layers,
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Uniform windows under fresh holes."""
        return self._hide(self.random_windows(self.setting.length, generator), generator)

    def _hide(self, windows: Tensor, generator: torch.Generator) -> Batch:
        setting = self.setting
        hidden = draw_hidden(len(windows), setting.length, setting.hidden, generator)
        return hide(windows, hidden)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats per hidden character."""
        return F.cross_entropy(model(batch).flatten(0, 1), batch["target"].flatten())

    def questions(self, split: Split, seed: int) -> Iterator[Batch]:
        """Disjoint windows, spread evenly over a split; the seed draws their holes."""
        generator = seeds.evaluation(seed, split)
        setting = self.setting
        for _, windows in self.even_windows(split, setting.length, setting.windows[split]):
            yield self._hide(windows, generator)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Scores on `questions`."""
        return scores(
            lambda batch: answers(model, batch).log_softmax(-1), self.questions(split, seed)
        )

    def references(self, seed: int) -> dict[str, float]:
        """Scores of counts, on the same test questions."""
        text, size = self.corpus.train, self.corpus.vocabulary.size
        frequencies, chain = letter_frequencies(text, size), transitions(text, size)
        alone = scores(
            lambda batch: frequencies.log().expand(*batch["target"].shape, -1),
            self.questions("test", seed),
        )
        chained = scores(
            lambda batch: markov(batch, frequencies, chain), self.questions("test", seed)
        )
        return {
            "letter-frequencies": alone["bits_per_hidden_character"],
            "markov": chained["bits_per_hidden_character"],
            "markov-accuracy": chained["accuracy"],
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """Test windows with their hidden characters, and the likeliest in their places."""
        text, length = self.corpus.test, self.setting.length
        windows = text.windows(text.even_starts(length, SHOWN), length)
        batch = self._hide(windows, seeds.evaluation(seed, "test", "shown"))
        guessed = filled(batch, answers(model, batch).argmax(-1))
        pieces = []
        for window, guess, asked in zip(windows, guessed, batch["asked_places"], strict=True):
            shown = list(self._line(window))
            for place in asked.tolist():
                shown[place] = "_"
            pieces.append(
                f"hidden   {''.join(shown)}\n"
                f"guessed  {self._line(guess)}\n"
                f"text     {self._line(window)}"
            )
        caption = "Test text with hidden characters (_), the likeliest in their places, the truth."
        return [pictures.text("filled-in", caption, "\n\n".join(pieces))]

    def _line(self, ids: Tensor) -> str:
        decoded = self.corpus.vocabulary.decode(ids[:SHOWN_CHARACTERS])
        return decoded.replace("\n", " ")


def scores(predict: Callable[[Batch], Tensor], questions: Iterator[Batch]) -> dict[str, float]:
    """Every metric of a predictor of (B, M, V) log-probabilities."""
    nats, right = [], []
    for batch in questions:
        said, target = predict(batch).double(), batch["target"]
        nats.append(-said.gather(2, target[..., None]).flatten())
        right.append((said.argmax(-1) == target).double().flatten())
    return {
        "bits_per_hidden_character": torch.cat(nats).mean().item() / math.log(2),
        "accuracy": torch.cat(right).mean().item(),
    }
