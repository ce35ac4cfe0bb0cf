"""What a task needs of a split, in whatever tokens it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from cab import Batch, Slots
from tasks.summarization.encoder_decoder import EncoderDecoder


class Corpus(Protocol):
    """N pairs, tokenised once."""

    def __len__(self) -> int: ...

    @property
    def source_length(self) -> int:
        """Tokens of the longest source."""

    @property
    def target_length(self) -> int:
        """Tokens of the longest target, START and END included."""

    def batch(self, rows: Tensor, generator: torch.Generator) -> Batch:
        """The pairs ``rows`` (B,): ``source`` (B, S) and ``target`` (B, T) from START to END,
        padding behind, and whatever else the model reads.
        """

    def texts(
        self, rows: Sequence[int], outputs: Sequence[Sequence[int]], batch: Batch
    ) -> list[str]:
        """Token ids that a model made of a batch of the pairs ``rows``, as text."""

    def reference(self, row: int) -> str:
        """The summary of a pair, as text."""


class Representation(Protocol):
    """The splits of a data set in one kind of tokens, and the model that reads them."""

    @property
    def corpora(self) -> Mapping[str, Corpus]:
        """By split."""

    @property
    def entity_base(self) -> int | None:
        """Id from which on tokens are placeholders; None: there are none."""

    def build(self, slots: Slots) -> EncoderDecoder:
        """The model, untrained."""
