"""The task ``digit-lines``: read a line of handwritten digits, without being told where each is.

The encoder sees overlapping strips of the picture, the decoder writes the digits from left to right
and must find where each of them stands: how many there are and how far apart differs from line to
line. It is handwritten text recognition in miniature, with the digits of held-out pictures in
validation and test.
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
    seeds,
)
from cab.task_contract import Split
from tasks.artifacts import pictures
from tasks.backbones.placed_encoder_decoder import PlacedEncoderDecoder, Size
from tasks.data.embedded import SPLITS, dataset
from tasks.data.images import digits
from tasks.digit_lines import lines
from tasks.digit_lines.readers import as_text, blind_nll, nearest_neighbour
from tasks.sequence_transduction import (
    FIRST_TOKEN,
    TransductionTask,
    character_error_rate,
    target_tokens,
    token_losses,
)
from tasks.tts.autoregressive import sinusoid_at

POSITION_BASE = 300.0

_SHOWN = 6


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    least: int
    """Digits of a line"""
    most: int
    size: Size
    evaluated: dict[str, int]
    """Lines per split"""


SETTINGS = {
    Scale.TINY: Setting(
        2, 4, Size(dim=32, heads=4, encoder=1, decoder=1), {"validation": 64, "test": 128}
    ),
    Scale.SMALL: Setting(
        3, 6, Size(dim=64, heads=4, encoder=1, decoder=2), {"validation": 256, "test": 512}
    ),
    Scale.BASE: Setting(
        3,
        10,
        Size(dim=256, heads=8, encoder=2, decoder=4, expansion=4),
        {"validation": 512, "test": 1024},
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=200, batch_size=16, learning_rate=5e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=1000, batch_size=32, learning_rate=5e-3),
    Scale.BASE: Recipe(
        steps=6000,
        batch_size=128,
        learning_rate=5e-4,
        warmup_steps=300,
        evaluations=8,
        precision="bfloat16",
    ),
}


@register_task(
    TaskInfo(
        id="digit-lines",
        title="Reading lines of handwritten digits",
        description="A picture of 3 to 6 handwritten digits with random gaps and heights, seen "
        "as overlapping strips, to the string of its digits; with the control none the decoder "
        "does not see the picture.",
        backbones={Pattern.CAUSAL_CROSS: "placed-encoder-decoder"},
        metrics=(
            Metric(
                "nll",
                "nat/token",
                higher_is_better=False,
                help="Negative log-likelihood of the digits and of the line's end, "
                "teacher-forced, per token.",
            ),
            Metric(
                "cer",
                "%",
                higher_is_better=False,
                help="Character error rate of greedy outputs: edit distance over the number of "
                "digits.",
                headline=False,
            ),
            Metric(
                "exact_match",
                "%",
                higher_is_better=True,
                help="Lines that greedy decoding reads without an error.",
                headline=False,
            ),
        ),
        references=(
            Reference(
                "blind", "nll", "Who knows how lines are drawn, but does not see the picture."
            ),
            Reference(
                "nearest-neighbour",
                "cer",
                "The nearest training image by its pixels, told where each digit stands.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="mnist-5k",
    )
)
class DigitLines(TransductionTask):
    """Strips of a picture to a string of digits."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.digits = {split: digits(split) for split in SPLITS}
        self.decoded = self.setting.evaluated["test"]

    @property
    def data_hash(self) -> str:
        """Hash of the digits and of how lines are made of them."""
        setting = self.setting
        settings = (setting.least, setting.most, sorted(setting.evaluated.items()))
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    @property
    def written(self) -> tuple[int, int]:
        """See `TransductionTask.written`: the digits of the longest line and END."""
        return 0, self.setting.most + 1

    def length(self) -> tuple[int, int]:
        """Digits with END, and strips."""
        return self.setting.most + 1, len(lines.strip_places(self.setting.most))

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size, most = self.setting.size, self.setting.most
        return PlacedEncoderDecoder(
            slots,
            size,
            tokens=FIRST_TOKEN + 10,
            features=lines.FEATURES,
            source_places=sinusoid_at(lines.strip_places(most), size.dim, POSITION_BASE),
            target_places=sinusoid_at(torch.arange(most + 1.0), size.dim, POSITION_BASE),
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh lines of training digits."""
        return lines.as_batch(self._draw("train", self.recipe.batch_size, generator))

    def evaluated_lines(self, split: Split, seed: int) -> lines.Lines:
        """The lines that a split is evaluated on."""
        return self._draw(split, self.setting.evaluated[split], seeds.evaluation(seed, split))

    def _draw(self, split: str, count: int, generator: torch.Generator) -> lines.Lines:
        setting = self.setting
        return lines.draw(*self.digits[split], count, setting.least, setting.most, generator)

    def problems(self, split: Split, seed: int) -> Batch:
        """See `TransductionTask.problems`."""
        return lines.as_batch(self.evaluated_lines(split, seed))

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihood of a split; on the test split also what greedy decoding reads."""
        scores = {"nll": token_losses(model, self.problems(split, seed)).mean().item()}
        if split == "test":
            problems = self.decoded_problems(seed)
            read = [_string(row) for row in self.outputs(model, problems)]
            true = [_string(row) for row in target_tokens(problems)]
            right = sum(a == b for a, b in zip(read, true, strict=True))
            scores["cer"] = character_error_rate(read, true)
            scores["exact_match"] = 100 * right / len(true)
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """See `cab.Task.references`."""
        test = self.evaluated_lines("test", seed)
        read = nearest_neighbour(test, *self.digits["train"])
        return {
            "blind": blind_nll(test, self.setting.least, self.setting.most),
            "nearest-neighbour": character_error_rate(read, map(as_text, test.digits)),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few test lines and what greedy decoding reads in them."""
        shown = self.evaluated_lines("test", seed)
        problems = {name: tensor[:_SHOWN] for name, tensor in lines.as_batch(shown).items()}
        read = "; ".join(
            f"{_string(row)} ({as_text(true)})"
            for row, true in zip(self.outputs(model, problems), shown.digits, strict=False)
        )
        tiles = [[255 - canvas.numpy()] for canvas in shown.canvas[:_SHOWN]]
        return [
            pictures.image(
                "lines",
                f"Test lines, read from the top as (in brackets what they say): {read}.",
                pictures.grid(tiles),
                zoom=2,
            )
        ]


def _string(tokens: list[int]) -> str:
    return "".join(str(token - FIRST_TOKEN) for token in tokens)
