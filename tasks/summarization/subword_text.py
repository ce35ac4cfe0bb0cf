"""Splits as subword ids at CAB's lengths, and the model that reads them: scale paper."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cab import Batch, Slots
from tasks.data.embedded import SPLITS
from tasks.summarization.pairs import TextPair
from tasks.summarization.paragen import ParaGenTransformer
from tasks.summarization.subwords import Subwords
from tasks.summarization.vocabulary import END, PADDING, START

_AT_ONCE = 256
"""Documents that are encoded together."""


class SubwordText:
    """The splits of a data set in subwords.

    Args:
        read: gives the pairs of a split; called twice for the training split.
        folder: where BART's tokens may lie; see `Subwords.of`.
        source_length: tokens of a source, END included, after which it is cut.
        target_length: tokens of a target, END included, likewise.
    """

    entity_base = None

    def __init__(
        self,
        read: Callable[[str], Iterable[TextPair]],
        folder: Path | None,
        source_length: int,
        target_length: int,
    ) -> None:
        self.subwords = Subwords.of(read("train"), folder)
        self.corpora = {
            split: SubwordCorpus(read(split), self.subwords, source_length, target_length)
            for split in SPLITS
        }

    def build(self, slots: Slots) -> ParaGenTransformer:
        """The model, untrained."""
        return ParaGenTransformer(slots, len(self.subwords))


class SubwordCorpus:
    """N pairs of one split; see `tasks.summarization.corpus.Corpus` for the methods."""

    def __init__(
        self,
        pairs: Iterable[TextPair],
        subwords: Subwords,
        source_length: int,
        target_length: int,
    ) -> None:
        self._subwords = subwords
        self._sources: list[NDArray[np.int32]] = []
        self._targets: list[NDArray[np.int32]] = []
        self._references: list[str] = []
        for chunk in _chunks(pairs):
            sources = subwords.encode([pair.source for pair in chunk])
            targets = subwords.encode([pair.target for pair in chunk])
            # A ninth of what lists of numbers take: the original data has over 100 million tokens.
            self._sources += [np.array([*ids, END][:source_length], np.int32) for ids in sources]
            self._targets += [
                np.array([START, *ids, END][: target_length + 1], np.int32) for ids in targets
            ]
            self._references += [pair.target for pair in chunk]

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def source_length(self) -> int:
        """Tokens of the longest source."""
        return max(map(len, self._sources))

    @property
    def target_length(self) -> int:
        """Tokens of the longest target, START and END included."""
        return max(map(len, self._targets))

    def reference(self, row: int) -> str:
        """The summary of a document, not cut."""
        return self._references[row]

    def texts(
        self, rows: Sequence[int], outputs: Sequence[Sequence[int]], batch: Batch
    ) -> list[str]:
        """Outputs as text."""
        return [self._subwords.decode(ids) for ids in outputs]

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """``source`` (B, S) and ``target`` (B, T) of ``rows`` (B,), padded to the longest."""
        return {
            "source": _padded([self._sources[row] for row in rows.tolist()]),
            "target": _padded([self._targets[row] for row in rows.tolist()]),
        }


def _padded(rows: list[NDArray[np.int32]]) -> Tensor:
    return pad_sequence(
        [torch.from_numpy(row.astype(np.int64)) for row in rows],
        batch_first=True,
        padding_value=PADDING,
    )


def _chunks(pairs: Iterable[TextPair]) -> Iterator[list[TextPair]]:
    remaining = iter(pairs)
    while chunk := list(islice(remaining, _AT_ONCE)):
        yield chunk
