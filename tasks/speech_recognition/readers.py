"""Readers without training that the scores are read against."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tasks.problems.context_counts import bits_per_symbol
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.speech_recognition.phrases import ALPHABET, Recordings, Word
from tasks.summarization.vocabulary import PADDING

_KINDS = FIRST_TOKEN + len(ALPHABET)
_FRAMES = 12
"""Frames that a word is brought to"""


def counted_nll(training: Tensor, test: Tensor, last: int) -> float:
    """Nats per token of who does not hear, but has counted what follows ``last`` characters.

    Args:
        training: (N, L) targets that are counted.
        test: (M, L) targets.
        last: tokens of the context, fewer at the start.
    """

    def pairs(target: Tensor) -> tuple[list[Tensor], Tensor]:
        padded = F.pad(target, (max(last - 1, 0), 0), value=_KINDS)
        length = target.shape[1] - 1
        wanted = target[:, 1:]
        scored = wanted != PADDING
        return [padded[:, i : i + length][scored] for i in range(last)], wanted[scored]

    return math.log(2) * bits_per_symbol(pairs(training), pairs(test), _KINDS)


def nearest_words(
    recordings: Recordings, phrases: Sequence[Sequence[Word]], known: Recordings
) -> list[str]:
    """What who is told where each word begins and ends hears: the training word whose frames, all
    brought to one length, are nearest by squared distance.
    """
    among = [word for (word,) in known.stretches(1)]
    templates = torch.stack([_shape(known, word) for word in among])
    return [
        " ".join(
            among[int(i)].text
            for i in torch.cdist(
                torch.stack([_shape(recordings, word) for word in words]), templates
            ).argmin(1)
        )
        for words in phrases
    ]


def _shape(recordings: Recordings, word: Word) -> Tensor:
    """(_FRAMES * bands,) of the frames of a word."""
    frames = recordings.frames[word.first : word.end].T[None]
    return F.interpolate(frames, _FRAMES, mode="linear", align_corners=True).flatten()
