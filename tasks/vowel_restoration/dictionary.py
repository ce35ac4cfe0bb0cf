"""Vowel restoration by a dictionary: the commonest training word with these consonants."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from tasks.vowel_restoration.text import VOWELS

_WORD = re.compile(r"[a-z]+")

_GAP = re.compile(r"[a-z]+|(?<= )(?= )")
"""What is left of a word; of a word of vowels alone, the place between two spaces"""

_NO_VOWELS = str.maketrans("", "", VOWELS)


class Dictionary:
    """Words by their consonants."""

    def __init__(self, training: str) -> None:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for word, count in Counter(_WORD.findall(training)).items():
            counts[without_vowels(word)][word] = count
        self._words = {bare: words.most_common(1)[0][0] for bare, words in counts.items()}

    def restored(self, source: str) -> str:
        """A text without vowels, each of its words replaced; one that is not known stays."""
        return _GAP.sub(lambda bare: self._words.get(bare[0], bare[0]), source)


def without_vowels(text: str) -> str:
    """What is left."""
    return text.translate(_NO_VOWELS)
