"""Phrases of recorded words, as a telephone menu joins them, and the frames that a reader sees.

A phrase is made of stretches of one or more successive words, each of a random clip of one split.
The window has one width whatever is said in it, so that its length says nothing of the text's; what
follows the speech is silence. Words are cut where a forced alignment puts their ends.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from cab import Batch
from tasks.data.embedded import SPLITS
from tasks.data.speech import load_speech
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import END, PADDING, START
from tasks.tts.corpus import Corpus, Utterance
from tasks.tts.spectrogram import TELEPHONE, Spectrogram

SPECTROGRAM: Spectrogram = TELEPHONE

ALPHABET = " '" + string.ascii_lowercase
_WORD = re.compile(r"[a-z']+")
SHORTEST = 3
"""Frames of a word; where the alignment gives fewer, it is wrong"""

STACKED, STRIDE = 5, 3
"""Frames of a source token, and from one to the next"""
FEATURES = STACKED * SPECTROGRAM.bands

NOISE = 0.2
"""Of training, in deviations of a band"""
MASKED_FRAMES, MASKED_BANDS = 8, 6
"""Most frames and most bands that training leaves out"""


@dataclass(frozen=True)
class Word:
    """One that is said in a clip."""

    text: str
    first: int
    """Row of its first frame among those of its split"""
    end: int
    """Row behind its last frame"""


@dataclass(frozen=True)
class Limits:
    """Sizes of a phrase."""

    words: tuple[int, int]
    """Fewest and most"""
    characters: int
    """Most"""
    frames: int
    """Of the window, a multiple of `STRIDE`"""


@dataclass(frozen=True)
class Phrases:
    """B phrases."""

    rows: Tensor
    """(B, T) float64 places among the frames of the split; those between two rows lie between them,
    -1 is silence"""
    words: list[list[Word]]

    @property
    def texts(self) -> list[str]:
        """What is said."""
        return [" ".join(word.text for word in words) for words in self.words]


class Recordings:
    """The clips of one split, and draws of phrases from them."""

    def __init__(self, utterances: Sequence[Utterance], silence: Tensor) -> None:
        """Find the words.

        Args:
            utterances: of the split.
            silence: (bands,) a frame of it.
        """
        self.frames = torch.cat([*(one.frames for one in utterances), silence[None]])
        """(N + 1, bands) of all clips, one after the other; the last is silence"""
        self.clips: list[list[Word]] = []
        begin = 0
        for one in utterances:
            self.clips.append(_words(one, begin))
            begin += len(one.frames)
        self._starts: dict[int, list[list[Word]]] = {}

    def stretches(self, count: int) -> list[list[Word]]:
        """All runs of so many words of a clip, each at least `SHORTEST` long."""
        if count not in self._starts:
            self._starts[count] = [
                clip[start : start + count]
                for clip in self.clips
                for start in range(len(clip) - count + 1)
                if all(w.end - w.first >= SHORTEST for w in clip[start : start + count])
            ]
        return self._starts[count]

    def draw(
        self, count: int, limits: Limits, generator: torch.Generator, tempo: float = 0.0
    ) -> Phrases:
        """Draw ``count`` phrases; one beyond the limits is drawn again.

        Args:
            count: phrases.
            limits: the number of words is uniform within them, and so is that of each stretch up to
                the words that are still wanted.
            generator: draws everything.
            tempo: a stretch is made slower or faster by up to this share.
        """

        def integer(least: int, most: int) -> int:
            return int(torch.randint(least, most + 1, (), generator=generator))

        rows = torch.full((count, limits.frames), -1.0, dtype=torch.float64)
        found: list[list[Word]] = []
        while len(found) < count:
            wanted = integer(*limits.words)
            words: list[Word] = []
            places: list[Tensor] = []
            while len(words) < wanted:
                among = self.stretches(integer(1, wanted - len(words)))
                stretch = among[integer(0, len(among) - 1)]
                rate = 1 + tempo * (2 * torch.rand((), generator=generator).item() - 1)
                first, last = stretch[0].first, stretch[-1].end - 1
                steps = 1 + math.floor((last - first) / rate)
                places.append(first + rate * torch.arange(steps, dtype=torch.float64))
                words += stretch
            characters = sum(len(word.text) + 1 for word in words) - 1
            line = torch.cat(places)
            if characters <= limits.characters and len(line) <= limits.frames:
                rows[len(found), : len(line)] = line
                found.append(words)
        return Phrases(rows, found)

    def sound(self, rows: Tensor) -> Tensor:
        """(B, T, bands) frames at the places of `Phrases.rows`."""
        before = rows.floor()
        weight = (rows - before)[..., None].float()
        index = before.long()
        # -1 is the last row, of silence; a place on a row needs no next one.
        behind = torch.where(rows == before, index, index + 1)
        return torch.lerp(self.frames[index], self.frames[behind], weight)


@cache
def load(name: str) -> Mapping[str, Recordings]:
    """The recordings of an embedded speech data set by split, standardised band by band.

    Raises:
        DataError: the embedded file is missing or altered.
    """
    corpus = Corpus(load_speech(name).splits(), SPECTROGRAM)
    floor = (math.log(SPECTROGRAM.floor) - corpus.mean) / corpus.deviation
    silence = torch.from_numpy(floor).float()
    return {split: Recordings(corpus.utterances[split], silence) for split in SPLITS}


def _words(utterance: Utterance, begin: int) -> list[Word]:
    ends = [0, *utterance.durations.cumsum(0).tolist()]
    return [
        Word(found[0], begin + ends[found.start()], begin + ends[found.end()])
        for found in _WORD.finditer(utterance.text)
    ]


def stacked(frames: Tensor) -> Tensor:
    """(B, T / STRIDE, FEATURES) source tokens of (B, T, bands) frames: those around each place."""
    before = (STACKED - STRIDE) // 2
    padded = torch.cat(
        [
            frames[:, :1].expand(-1, before, -1),
            frames,
            frames[:, -1:].expand(-1, STACKED - STRIDE - before, -1),
        ],
        dim=1,
    )
    return padded.unfold(1, STACKED, STRIDE).flatten(2)


def targets(texts: Sequence[str], characters: int) -> Tensor:
    """(B, characters + 2) tokens from START to END, padding behind."""
    rows = torch.full((len(texts), characters + 2), PADDING)
    for row, text in zip(rows, texts, strict=True):
        tokens = [START, *(FIRST_TOKEN + ALPHABET.index(character) for character in text), END]
        row[: len(tokens)] = torch.tensor(tokens)
    return rows


def decode(tokens: Sequence[int]) -> str:
    """Tokens as text; special ones are left out."""
    return "".join(ALPHABET[token - FIRST_TOKEN] for token in tokens if token >= FIRST_TOKEN)


def as_batch(frames: Tensor, texts: Sequence[str], characters: int) -> Batch:
    """``source`` (B, T / STRIDE, FEATURES) and ``target`` (B, characters + 2)."""
    return {"source": stacked(frames), "target": targets(texts, characters)}


def disturbed(frames: Tensor, generator: torch.Generator) -> Tensor:
    """(B, T, bands) frames with noise on every number, and with a run of frames and a run of bands
    put to their mean, zero, as SpecAugment does (Park et al. 2019).
    """
    noisy = frames + NOISE * torch.randn(frames.shape, generator=generator)
    for axis, most in ((1, MASKED_FRAMES), (2, MASKED_BANDS)):
        size = frames.shape[axis]
        width = torch.randint(most + 1, (len(frames), 1), generator=generator)
        first = torch.randint(size, (len(frames), 1), generator=generator)
        places = torch.arange(size)
        hidden = (places >= first) & (places < first + width)
        noisy = noisy.masked_fill(hidden.unsqueeze(3 - axis), 0.0)
    return noisy
