"""Frequent words as tokens, all others as placeholders: an entity-anonymised vocabulary.

A model this small cannot learn the names of the world, but it can learn to carry them over. Words
beyond the commonest ones of the *training* text become entities: the first such word of a document
is its entity 0, the next new one entity 1, and so on. At each use of a document its entities get
distinct random placeholder tokens (`tasks.summarization.corpus`), so that a placeholder means
nothing by itself and must be copied from where it stands in the source, as in the anonymised
CNN/Daily Mail data of Hermann et al. (2015).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.summarization.pairs import Pair

PADDING, UNKNOWN, START, END = range(4)
_SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")


@dataclass(frozen=True)
class Encoded:
    """A pair in token ids; entity e of the document is ``Vocabulary.entity_base + e``."""

    source: Mapping[str, list[int]]
    target: list[int]
    """Between START and END; a word that is neither frequent nor in the source is UNKNOWN."""
    entities: list[str]
    """The document's own words behind its entities."""


class Vocabulary:
    """Token ids: special tokens, frequent words, placeholders."""

    def __init__(self, words: Sequence[str], placeholders: int) -> None:
        self.words = (*_SPECIAL, *words)
        self.placeholders = placeholders
        self._ids = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def of(cls, training: Iterable[Pair], size: int, placeholders: int) -> Vocabulary:
        """The ``size`` commonest words of the training pairs; ties in order of appearance."""
        counts: Counter[str] = Counter()
        for pair in training:
            for field in pair.source.values():
                counts.update(field)
            counts.update(pair.target)
        return cls([word for word, _ in counts.most_common(size)], placeholders)

    @property
    def entity_base(self) -> int:
        """Id of the first placeholder."""
        return len(self.words)

    def __len__(self) -> int:
        return len(self.words) + self.placeholders

    def encode(self, pair: Pair) -> Encoded:
        """Ids of a pair; entities are numbered in the order of the source."""
        numbers: dict[str, int] = {}
        source = {
            name: [self._source_id(word, numbers) for word in words]
            for name, words in pair.source.items()
        }
        target = [
            self._ids[word]
            if word in self._ids
            else self.entity_base + numbers[word]
            if word in numbers
            else UNKNOWN
            for word in pair.target
        ]
        return Encoded(source, [START, *target, END], list(numbers))

    def decode(self, ids: Iterable[int], entities: Sequence[str]) -> list[str]:
        """Words of ids as `encode` gives them; padding, START and END are left out."""
        return [
            entities[index - self.entity_base] if index >= self.entity_base else self.words[index]
            for index in ids
            if index not in (PADDING, START, END)
        ]

    def _source_id(self, word: str, numbers: dict[str, int]) -> int:
        if word in self._ids:
            return self._ids[word]
        number = numbers.setdefault(word, len(numbers))
        if number < self.placeholders:
            return self.entity_base + number
        del numbers[word]
        return UNKNOWN
