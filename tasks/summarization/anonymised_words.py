"""Splits in anonymised words, and the model that reads them: all scales but paper."""

from __future__ import annotations

from collections.abc import Sequence

from cab import Slots
from tasks.data.embedded import SPLITS
from tasks.summarization.anonymised_corpus import AnonymisedCorpus
from tasks.summarization.encoder_decoder import Sizes
from tasks.summarization.model import Summarizer
from tasks.summarization.pairs import Splits
from tasks.summarization.vocabulary import Vocabulary


class AnonymisedWords:
    """The splits of a data set under one vocabulary.

    Args:
        splits: the pairs.
        fields: names of all fields of a source.
        words: common words that are tokens. placeholders: tokens for all others.
        target_words: words of the longest target of all.
        sizes: of the model.
    """

    def __init__(
        self,
        splits: Splits,
        fields: Sequence[str],
        *,
        words: int,
        placeholders: int,
        target_words: int,
        sizes: Sizes,
    ) -> None:
        self.fields = tuple(fields)
        self.sizes = sizes
        self.target_words = target_words
        self.vocabulary = Vocabulary.of(splits["train"], words, placeholders)
        self.corpora = {
            split: AnonymisedCorpus(splits[split], self.vocabulary, fields) for split in SPLITS
        }

    @property
    def entity_base(self) -> int:
        """See `Vocabulary.entity_base`."""
        return self.vocabulary.entity_base

    def build(self, slots: Slots) -> Summarizer:
        """The model, untrained."""
        return Summarizer(
            slots,
            self.sizes,
            vocabulary=len(self.vocabulary),
            fields=len(self.fields),
            source_length=max(corpus.source_length for corpus in self.corpora.values()),
            target_length=self.target_words + 1,
        )
