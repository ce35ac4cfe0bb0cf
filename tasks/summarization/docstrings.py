"""The embedded docstrings: what explains a Python object, and the line that sums it up."""

from __future__ import annotations

from tasks.data.embedded import SPLITS, dataset
from tasks.summarization.pairs import Pair, Splits
from tasks.summarization.words import words

DATASET = "docstrings"

FIELD = "body"
"""The one field of a source."""


def read_docstrings(*, source_words: int, target_words: int) -> Splits:
    """Pairs of the embedded splits, cut after so many words.

    Raises:
        DataError: the embedded file is missing or altered.
    """
    data = dataset(DATASET)
    return {
        split: [
            Pair(
                row["id"],
                {FIELD: words(row["source"], source_words)},
                words(row["target"], target_words),
            )
            for row in data.select(split).select(["id", "source", "target"]).to_pylist()
        ]
        for split in SPLITS
    }


def hash_docstrings() -> str:
    """SHA-256 of the embedded file."""
    return dataset(DATASET).data_hash
