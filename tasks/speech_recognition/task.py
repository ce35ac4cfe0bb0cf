"""The task ``speech-recognition``: write what is said in a phrase, character by character.

The encoder hears log-mel frames of recorded words, joined as a telephone menu joins its prompts.
The decoder writes their letters and must find where each of them is said, since some take ten times
as long as others. Clips of the same words are in one split, and about a fifth of the words that are
tested occur nowhere in training, so that letters have to be heard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
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
from tasks.data.embedded import dataset
from tasks.sequence_transduction import (
    FIRST_TOKEN,
    TransductionTask,
    character_error_rate,
    target_tokens,
    token_losses,
)
from tasks.speech_recognition import phrases
from tasks.speech_recognition.phrases import ALPHABET, SPECTROGRAM, Limits, Phrases
from tasks.speech_recognition.readers import counted_nll, nearest_words
from tasks.tts.autoregressive import sinusoid_at

POSITION_BASE = 300.0

TEMPO = 0.15
"""By how much training makes speech slower or faster, at most"""

_COUNTED = 2048
"""Training phrases whose characters are counted"""
_SHOWN = 12


@dataclass(frozen=True)
class Setting:
    """Sizes of one scale."""

    limits: Limits
    size: Size
    evaluated: Mapping[str, int]
    """Phrases per split"""
    decoded: int
    """Test phrases that are decoded"""


SETTINGS = {
    Scale.TINY: Setting(
        Limits(words=(1, 2), characters=12, frames=63),
        Size(dim=32, heads=4, encoder=1, decoder=1),
        {"validation": 64, "test": 128},
        decoded=16,
    ),
    Scale.SMALL: Setting(
        Limits(words=(1, 3), characters=20, frames=114),
        Size(dim=64, heads=4, encoder=2, decoder=2),
        {"validation": 256, "test": 512},
        decoded=128,
    ),
    Scale.BASE: Setting(
        Limits(words=(2, 8), characters=60, frames=321),
        Size(dim=256, heads=8, encoder=4, decoder=4, expansion=4),
        {"validation": 512, "test": 1024},
        decoded=256,
    ),
}

RECIPES = {
    Scale.TINY: Recipe(steps=250, batch_size=16, learning_rate=5e-3, evaluations=2),
    Scale.SMALL: Recipe(steps=1000, batch_size=16, learning_rate=5e-3),
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
        id="speech-recognition",
        title="Speech recognition",
        description="Log-mel frames of recorded words, 1 to 3 of them joined to a phrase (scale "
        "small), to their characters; telephone prompts, all of one speaker, are split by their "
        "words between training, validation and test. With the control none the decoder does not "
        "hear the speech.",
        backbones={Pattern.CAUSAL_CROSS: "placed-encoder-decoder"},
        metrics=(
            Metric(
                "nll",
                "nat/character",
                higher_is_better=False,
                help="Negative log-likelihood of the characters and of the phrase's end, "
                "teacher-forced, per character.",
            ),
            Metric(
                "cer",
                "%",
                higher_is_better=False,
                help="Character error rate of greedy outputs (16 test phrases at scale tiny, 128 "
                "at small, 256 at base).",
                headline=False,
            ),
        ),
        references=(
            Reference("letter-frequencies", "nll", "How often characters occur in training."),
            Reference(
                "trigrams",
                "nll",
                "How often characters follow the two before them in training.",
            ),
            Reference(
                "nearest-word",
                "cer",
                "Who is told where each word begins and ends: the training word that sounds most "
                "alike, both brought to one length.",
            ),
        ),
        scales=(Scale.TINY, Scale.SMALL, Scale.BASE),
        dataset="asterisk-prompts",
    )
)
class SpeechRecognition(TransductionTask):
    """Frames to characters."""

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.setting = SETTINGS[scale]
        self.decoded = self.setting.decoded
        self.recordings = phrases.load(self.info.dataset)

    @property
    def data_hash(self) -> str:
        """Hash of the speech and of how phrases are made of it."""
        setting = self.setting
        settings = (SPECTROGRAM, setting.limits, sorted(setting.evaluated.items()))
        data = dataset(self.info.dataset).data_hash
        return hashlib.sha256(f"{data} {settings}".encode()).hexdigest()

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return RECIPES[self.scale]

    @property
    def written(self) -> tuple[int, int]:
        """See `TransductionTask.written`: the characters of the longest phrase and END."""
        return 0, self.setting.limits.characters + 1

    def length(self) -> tuple[int, int]:
        """Characters with END, and source tokens."""
        limits = self.setting.limits
        return limits.characters + 1, limits.frames // phrases.STRIDE

    @cached_property
    def rate(self) -> float:
        """Characters per frame in training."""
        recordings = self.recordings["train"]
        said = [clip for clip in recordings.clips if clip]
        characters = sum(len(word.text) + 1 for clip in said for word in clip) - len(said)
        return characters / sum(clip[-1].end - clip[0].first for clip in said)

    def build(self, slots: Slots) -> nn.Module:
        """See `cab.Task.build`."""
        size = self.setting.size
        characters, tokens = self.length()
        heard = phrases.STRIDE * (torch.arange(float(tokens)) + 0.5)
        return PlacedEncoderDecoder(
            slots,
            size,
            tokens=FIRST_TOKEN + len(ALPHABET),
            features=phrases.FEATURES,
            source_places=sinusoid_at(self.rate * heard - 0.5, size.dim, POSITION_BASE),
            target_places=sinusoid_at(torch.arange(float(characters)), size.dim, POSITION_BASE),
        )

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Fresh phrases of training clips, with the tempo changed, noise and parts left out."""
        limits, recordings = self.setting.limits, self.recordings["train"]
        drawn = recordings.draw(self.recipe.batch_size, limits, generator, TEMPO)
        frames = phrases.disturbed(recordings.sound(drawn.rows), generator)
        return phrases.as_batch(frames, drawn.texts, limits.characters)

    def evaluated_phrases(self, split: Split, seed: int) -> Phrases:
        """The phrases that a split is evaluated on."""
        generator = seeds.evaluation(seed, split)
        count = self.setting.evaluated[split]
        return self.recordings[split].draw(count, self.setting.limits, generator)

    def problems(self, split: Split, seed: int) -> Batch:
        """See `TransductionTask.problems`."""
        drawn = self.evaluated_phrases(split, seed)
        frames = self.recordings[split].sound(drawn.rows)
        return phrases.as_batch(frames, drawn.texts, self.setting.limits.characters)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """Likelihood of a split; on the test split also errors of greedy outputs."""
        scores = {"nll": token_losses(model, self.problems(split, seed)).mean().item()}
        if split == "test":
            problems = self.decoded_problems(seed)
            heard = map(phrases.decode, self.outputs(model, problems))
            said = map(phrases.decode, target_tokens(problems))
            scores["cer"] = character_error_rate(heard, said)
        return scores

    def references(self, seed: int) -> dict[str, float]:
        """See `cab.Task.references`."""
        limits, known = self.setting.limits, self.recordings["train"]
        counted = known.draw(_COUNTED, limits, seeds.evaluation(seed, "test", "counted"))
        training = phrases.targets(counted.texts, limits.characters)
        test = self.evaluated_phrases("test", seed)
        target = phrases.targets(test.texts, limits.characters)
        heard = nearest_words(self.recordings["test"], test.words, known)
        return {
            "letter-frequencies": counted_nll(training, target, 0),
            "trigrams": counted_nll(training, target, 2),
            "nearest-word": character_error_rate(heard, test.texts),
        }

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A few test phrases as greedy decoding hears them."""
        problems = self.decoded_problems(seed, _SHOWN)
        pieces = (
            f"heard {phrases.decode(heard)}\nsaid  {phrases.decode(said)}"
            for heard, said in zip(
                self.outputs(model, problems), target_tokens(problems), strict=True
            )
        )
        caption = "Test phrases as greedy decoding hears them, and what is said."
        return [pictures.text("transcriptions", caption, "\n\n".join(pieces))]
