"""Transcribed speech of one speaker, decoded, with the samples that each character takes.

speech = load_speech()
clip = speech.train[0]
clip.samples, clip.text, clip.durations
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import soundfile  # type: ignore[import-untyped]  # it ships no types
import torch
from torch import Tensor

from cab.errors import DataError
from tasks.data.embedded import EmbeddedDataset
from tasks.data.embedded import dataset as embedded_dataset


@dataclass(frozen=True)
class Clip:
    """A recording and what is said in it."""

    id: str
    text: str
    samples: Tensor
    """(N,) float32 in [-1, 1)"""
    durations: Tensor
    """(len(text),) int64: samples per character, N in all; zero for a character without sound"""


@dataclass(frozen=True)
class SpeechCorpus:
    """Clips of one sampling rate in three splits, without a text that is in two of them."""

    rate: int
    """samples per second"""
    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]

    def splits(self) -> dict[str, tuple[Clip, ...]]:
        """The clips by the name of their split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def load_speech(dataset: str = "asterisk-prompts") -> SpeechCorpus:
    """The embedded speech of that name.

    Args:
        dataset: an embedded data set with a clip per row: id, text, audio (FLAC) and durations.

    Raises:
        DataError: data missing or altered, or clips of several sampling rates or channels.
    """
    embedded = embedded_dataset(dataset)
    rates: set[int] = set()
    splits = (_decoded(embedded, split, rates) for split in ("train", "validation", "test"))
    train, validation, test = splits
    if len(rates) != 1:
        raise DataError(f"{dataset} mixes sampling rates: {', '.join(map(str, sorted(rates)))}")
    return SpeechCorpus(rates.pop(), train, validation, test)


def _decoded(embedded: EmbeddedDataset, split: str, rates: set[int]) -> tuple[Clip, ...]:
    """The clips of a split; adds their sampling rates to ``rates``."""
    clips = []
    for row in embedded.select(split).to_pylist():
        samples, rate = soundfile.read(io.BytesIO(row["audio"]), dtype="float32")
        if samples.ndim != 1 or len(samples) != sum(row["durations"]):
            raise DataError(f"clip {row['id']} of {embedded.name} is not mono or not aligned")
        rates.add(rate)
        durations = torch.tensor(row["durations"])
        clips.append(Clip(row["id"], row["text"], torch.from_numpy(samples), durations))
    return tuple(clips)
