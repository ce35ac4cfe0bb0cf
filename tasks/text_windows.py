"""Tasks over windows of running text: the embedded books, or a folder laid out like PG-19."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from cab import Pattern, Scale, Task
from cab.task_contract import Split
from tasks.data.text import EncodedText
from tasks.data.text_source import EVERYTHING, EXTRACT, folder_problems, load_corpus

_WINDOWS_AT_ONCE = 64
_CHARACTERS_AT_ONCE = 16_384
"""At most, in a batch of an evaluation"""


class TextWindowTask(Task):
    """Random windows are trained on, windows spread evenly over a split are evaluated.

    Whole documents are held out. At the largest scale all of a folder is read, at the others an
    extract that is longer than they visit.
    """

    def __init__(self, pattern: Pattern, scale: Scale, data_dir: Path | None = None) -> None:
        """See `cab.Task`."""
        super().__init__(pattern, scale, data_dir)
        self.corpus = load_corpus(
            self.info.dataset,
            data_dir,
            window=self.longest_window(scale),
            limits=EVERYTHING if scale is Scale.PAPER else EXTRACT,
        )

    @classmethod
    @abstractmethod
    def longest_window(cls, scale: Scale) -> int:
        """Characters that every split must hold at least."""

    @classmethod
    def data_problems(cls, data_dir: Path) -> list[str]:
        """See `cab.Task.data_problems`; the longest windows must fit."""
        return folder_problems(data_dir, cls.longest_window(cls.info.scales[-1]))

    @property
    def data_hash(self) -> str:
        """See `cab.Task.data_hash`."""
        return self.corpus.digest()

    def held_out(self, split: Split) -> EncodedText:
        """The text of an evaluated split."""
        return self.corpus.validation if split == "validation" else self.corpus.test

    def random_windows(self, length: int, generator: torch.Generator) -> Tensor:
        """(B, length) ids from uniform places of the training text, B as the recipe has it."""
        text = self.corpus.train
        starts = text.random_starts(length, self.recipe.batch_size, generator)
        return text.windows(starts, length)

    def even_windows(
        self, split: Split, length: int, count: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of disjoint windows, spread evenly over a split.

        Args:
            split: validation or test.
            length: characters of a window.
            count: windows; fewer where the split has no more.

        Yields:
            where they start, and (b, length) ids.
        """
        text = self.held_out(split)
        rows = max(1, min(_WINDOWS_AT_ONCE, _CHARACTERS_AT_ONCE // length))
        for starts in torch.split(text.even_starts(length, count), rows):
            yield starts.tolist(), text.windows(starts, length)
