"""One split in anonymised words as tensors, and the batches drawn from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cab import Batch
from tasks.summarization.pairs import Pair
from tasks.summarization.vocabulary import PADDING, Vocabulary


class AnonymisedCorpus:
    """N pairs, tokenised once; drawing a batch is a few tensor operations.

    Args:
        pairs: the split.
        vocabulary: of the training split.
        fields: names of all fields, in the order of their numbers.
    """

    def __init__(
        self, pairs: Sequence[Pair], vocabulary: Vocabulary, fields: Sequence[str]
    ) -> None:
        numbers = {name: number for number, name in enumerate(fields)}
        self.vocabulary = vocabulary
        self._pairs = pairs
        self.encoded = [vocabulary.encode(pair) for pair in pairs]
        self._fields = len(fields)
        self._source = _padded(
            [[token for ids in e.source.values() for token in ids] for e in self.encoded]
        )
        self._field = _padded(
            [[numbers[name] for name, ids in e.source.items() for _ in ids] for e in self.encoded]
        )
        self._offset = _padded(
            [[i for ids in e.source.values() for i in range(len(ids))] for e in self.encoded]
        )
        self._target = _padded([e.target for e in self.encoded])

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def source_length(self) -> int:
        """Tokens of the longest source."""
        return self._source.shape[1]

    @property
    def target_length(self) -> int:
        """Tokens of the longest target, START and END included."""
        return self._target.shape[1]

    def reference(self, row: int) -> str:
        """The summary of a document."""
        return " ".join(self._pairs[row].target)

    def texts(
        self, rows: Sequence[int], outputs: Sequence[Sequence[int]], batch: Batch
    ) -> list[str]:
        """Token ids as text: placeholders are the words that they stand for in the batch's
        documents; one that stands for nothing there is a word that no document has.
        """
        names = batch["placeholders"].tolist()
        return [
            " ".join(self._words(row, ids, placeholders))
            for row, ids, placeholders in zip(rows, outputs, names, strict=True)
        ]

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The pairs ``rows`` (B,) with fresh placeholders and a fresh order of fields.

        Returns:
            ``source``, ``field`` and ``offset`` (B, S): token, its field, its place in the field;
            ``target`` (B, T): START, the summary, END; ``placeholders`` (B, P): the placeholder of
            each entity. Padding is trimmed to the batch's longest source and target.
        """
        source, field = self._source[rows], self._field[rows]
        offset, target = self._offset[rows], self._target[rows]
        batch, width = source.shape
        rank = torch.rand(batch, self._fields, generator=generator).argsort(1)
        place = rank.gather(1, field) * width + offset
        place[source == PADDING] = self._fields * width
        order = place.argsort(1)[:, : int((source != PADDING).sum(1).max())]
        count = self.vocabulary.placeholders
        placeholders = torch.rand(batch, count, generator=generator).argsort(1)
        target = target[:, : int((target != PADDING).sum(1).max())]
        return {
            "source": self._anonymised(source.gather(1, order), placeholders),
            "field": field.gather(1, order),
            "offset": offset.gather(1, order),
            "target": self._anonymised(target, placeholders),
            "placeholders": placeholders,
        }

    def _words(self, row: int, ids: Sequence[int], placeholders: Sequence[int]) -> list[str]:
        base = self.vocabulary.entity_base
        own = self.encoded[row].entities
        words = {base + place: word for place, word in zip(placeholders, own, strict=False)}
        return [
            words.get(i, f"<entity{i - base}>") if i >= base else self.vocabulary.words[i]
            for i in ids
        ]

    def _anonymised(self, ids: Tensor, placeholders: Tensor) -> Tensor:
        base = self.vocabulary.entity_base
        renamed = base + placeholders.gather(1, (ids - base).clamp_min(0))
        return torch.where(ids >= base, renamed, ids)


def _padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=PADDING
    )
