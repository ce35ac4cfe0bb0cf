"""Text in a small alphabet, and what is left of it without its vowels."""

from __future__ import annotations

import re
from functools import cache

import torch
from torch import Tensor

from cab import Batch
from tasks.data.embedded import SPLITS, dataset
from tasks.data.text import TextCorpus
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import PADDING, START

VOWELS = "aeiou"

_OTHERS = re.compile(r"[^a-z ,.;:'?!\"-]")


def plain(text: str) -> str:
    """In lower case, one space for any white space, letters and common marks alone."""
    return " ".join(_OTHERS.sub("", " ".join(text.lower().split())).split())


@cache
def load(name: str) -> TextCorpus:
    """The splits of an embedded corpus, each as one `plain` text.

    Raises:
        DataError: the embedded file is missing or altered.
    """
    data = dataset(name)
    return TextCorpus.of(*(plain("\n".join(data.select(s)["text"].to_pylist())) for s in SPLITS))


class Consonants:
    """Takes the vowels out of windows of a corpus."""

    def __init__(self, corpus: TextCorpus) -> None:
        self._vowel = torch.zeros(corpus.vocabulary.size, dtype=torch.bool)
        self._vowel[[1 + corpus.vocabulary.characters.index(vowel) for vowel in VOWELS]] = True
        self.share = self._vowel[corpus.train.ids.long()].double().mean().item()
        """Of vowels in the characters of the training text"""

    def batch(self, windows: Tensor) -> Batch:
        """``source`` (B, S) tokens that are no vowels, padded to the longest, and ``target``
        (B, L + 1), START and all tokens, of (B, L) ids of the corpus.
        """
        # The corpus' ids count from 1: its alphabet has no character that training text lacks.
        tokens = windows + (FIRST_TOKEN - 1)
        kept = ~self._vowel[windows]
        counts = kept.sum(1, keepdim=True)
        first = (~kept).int().sort(dim=1, stable=True).indices[:, : int(counts.max())]
        there = torch.arange(first.shape[1]) < counts
        start = torch.full((len(windows), 1), START)
        return {
            "source": torch.where(there, tokens.gather(1, first), PADDING),
            "target": torch.cat([start, tokens], dim=1),
        }


def decode(corpus: TextCorpus, tokens: list[int]) -> str:
    """Tokens of a batch as text; special ones are left out."""
    ids = [token - (FIRST_TOKEN - 1) for token in tokens if token >= FIRST_TOKEN]
    return corpus.vocabulary.decode(torch.tensor(ids, dtype=torch.long))
