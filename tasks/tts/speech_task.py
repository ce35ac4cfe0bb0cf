"""What both text-to-speech tasks share: data, batches, scores and samples."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from cab import Artifact, Batch, Pattern, Recipe, Scale, Slots, Task
from cab.task_contract import Split
from tasks.data.embedded import dataset as embedded_dataset
from tasks.data.speech import Clip, load_speech
from tasks.evaluation import device_of
from tasks.tts.autoregressive import Autoregressive, AutoregressiveSize
from tasks.tts.corpus import Corpus, Utterance
from tasks.tts.decoder_only import DecoderOnly
from tasks.tts.distortion import distortions
from tasks.tts.fastspeech import FastSpeech, FastSpeechSize
from tasks.tts.lj_speech import folder_problems, hash_folder, read_folder
from tasks.tts.samples import samples
from tasks.tts.settings import DECODER_ONLY, FASTSPEECH, HEARD, LIMITS, TRANSFORMER
from tasks.tts.spectrogram import LJ_SPEECH, TELEPHONE
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.transformer_tts import TransformerTTS

_PART = 8
"""A witness looks at every so manyth utterance"""

_EVALUATION_BATCH = 16

_SIMILAR = 4
"""Times as many utterances as a batch has are drawn, so that those in it are about equally long"""


Backbone = type[FastSpeech] | type[TransformerTTS] | type[DecoderOnly]


class SpeechTask(Task):
    """Characters to log-mel spectrograms of one speaker."""

    models: ClassVar[Mapping[Pattern, Backbone]]

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        super().__init__(pattern, scale, data_dir)
        self.model = self.models[pattern]
        self.size, self._recipe = settings(self.model, scale)
        if data_dir is None:
            speech = load_speech(self.info.dataset)
            clips: Mapping[str, Sequence[Clip]] = speech.splits()
            spectrogram = TELEPHONE
        else:
            durations = self.model is FastSpeech
            clips = read_folder(data_dir, durations=durations, limits=LIMITS[scale])
            spectrogram = LJ_SPEECH
        variances = isinstance(self.size, FastSpeechSize) and self.size.variances
        self.corpus = Corpus(clips, spectrogram, variances)

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """See `cab.Task.data_problems`."""
        return list(folder_problems(data_dir))

    @property
    def data_hash(self) -> str:
        """Of the embedded table, or of every file in the folder."""
        if self.data_dir is None:
            return embedded_dataset(self.info.dataset).data_hash
        return hash_folder(self.data_dir)

    @property
    def recipe(self) -> Recipe:
        """See `cab.Task.recipe`."""
        return self._recipe

    def length(self) -> tuple[int, int]:
        """Tokens of the longest text, groups of the longest sound, by the slot."""
        text = self.corpus.longest_text
        sound = -(-self.corpus.longest_sound // self.size.group)
        if self.model is DecoderOnly:
            return text + sound, text + sound
        if self.pattern is Pattern.CAUSAL_CROSS:
            return sound, text
        if self.pattern is Pattern.CAUSAL_SELF:
            return sound, sound
        longest = max(text, sound) if self.model is FastSpeech else text
        return longest, longest

    def build(self, slots: Slots) -> nn.Module:
        """The backbone of the pattern."""
        corpus, model, size = self.corpus, self.model, self.size
        sizes = {
            "bands": corpus.spectrogram.bands,
            "longest_text": corpus.longest_text,
            "longest_sound": corpus.longest_sound,
        }
        if issubclass(model, FastSpeech):
            assert isinstance(size, FastSpeechSize)
            return model(slots, size, **sizes)
        assert isinstance(size, AutoregressiveSize)
        return model(slots, size, **sizes)

    def training_batch(self, generator: torch.Generator) -> Batch:
        """Distinct utterances of about one length: one of the parts of a larger draw, by length."""
        members = self.corpus.utterances["train"]
        wanted = min(self.recipe.batch_size, len(members))
        parts = max(1, min(_SIMILAR, len(members) // wanted))
        drawn = torch.randperm(len(members), generator=generator)[: parts * wanted].tolist()
        drawn.sort(key=lambda number: len(members[number].frames))
        part = int(torch.randint(parts, (1,), generator=generator))
        chosen = drawn[part * wanted : (part + 1) * wanted]
        return self.corpus.batch([members[number] for number in chosen], self.size.group)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See the backbone's `Synthesiser.loss`."""
        assert isinstance(model, Synthesiser)
        return model.loss(batch)

    def causal_inputs(self) -> tuple[str, ...]:
        """See `cab.Task.causal_inputs`."""
        return ("frames",) if self.pattern.causal else ()

    def causal_outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, T, bands) frames as the decoder makes them; a postnet looks to both sides."""
        assert isinstance(model, Autoregressive)
        return model.forced(batch)

    def evaluate(self, model: nn.Module, split: Split, seed: int) -> dict[str, float]:
        """``l1`` of all frames of the split, guided; ``mcd`` and ``msd`` of free synthesis."""
        assert isinstance(model, Synthesiser)
        members = self.corpus.utterances[split]
        total, count = 0.0, 0
        for batch in self._batches(model, members):
            error = (model.guided(batch).float() - batch["frames"]).abs().mean(-1)
            total += float(error[batch["frame_mask"]].double().sum())
            count += int(batch["frame_mask"].sum())
        heard = members[: HEARD[self.scale]]
        made = [
            self.corpus.log_mel(frames)
            for batch in self._batches(model, heard)
            for frames in model.free(batch)
        ]
        wanted = [self.corpus.log_mel(one.frames) for one in by_length(heard)]
        return {"l1": total / count, **distortions(made, wanted)}

    def reduced(self) -> Self:
        """See `cab.Task.reduced`; aligning what was said with the truth takes its time."""
        part = copy.copy(self)
        part.corpus = copy.copy(self.corpus)
        part.corpus.utterances = {
            split: members[::_PART] for split, members in self.corpus.utterances.items()
        }
        return part

    def artifacts(self, model: nn.Module, seed: int) -> list[Artifact]:
        """A test utterance longer than three quarters of them."""
        assert isinstance(model, Synthesiser)
        members = by_length(self.corpus.utterances["test"])
        return samples(model, self.corpus, members[3 * len(members) // 4])

    def _batches(self, model: Synthesiser, members: Sequence[Utterance]) -> list[Batch]:
        """Utterances in the order of their lengths, on the model's device."""
        device = device_of(model)
        ordered = by_length(members)
        return [
            {
                name: tensor.to(device)
                for name, tensor in self.corpus.batch(
                    ordered[start : start + _EVALUATION_BATCH], model.group
                ).items()
            }
            for start in range(0, len(ordered), _EVALUATION_BATCH)
        ]


def settings(model: Backbone, scale: Scale) -> tuple[FastSpeechSize | AutoregressiveSize, Recipe]:
    """Geometry and recipe."""
    if model is FastSpeech:
        return FASTSPEECH[scale]
    return DECODER_ONLY[scale] if model is DecoderOnly else TRANSFORMER[scale]


def by_length(utterances: Sequence[Utterance]) -> list[Utterance]:
    """From the shortest to the longest."""
    return sorted(utterances, key=lambda one: len(one.frames))
