"""What every backbone offers the tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from cab import Batch


class Synthesiser(nn.Module, ABC):
    """Characters to standardised log-mel frames."""

    embedding: nn.Embedding
    """Of the characters"""
    group: int
    """Frames that one position of the decoder makes"""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The published losses, a scalar; see `Corpus.batch` for the batch."""

    @abstractmethod
    def guided(self, batch: Batch) -> Tensor:
        """(B, G * group, bands) frames, given what training gives: the recording's frames before
        each group, or its durations.
        """

    @abstractmethod
    def free(self, batch: Batch) -> list[Tensor]:
        """(T, bands) frames of each text, from the text alone but for what the class docstring
        says is given.
        """
