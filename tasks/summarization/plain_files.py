"""The original data: plain files of documents and summaries, laid out as Multi-News ships them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from cab.errors import DataError
from tasks.summarization.pairs import Pair, Splits
from tasks.summarization.words import words

FIELD = "document"
"""The one field of plain text."""

LAYOUT = (
    "expected a folder with train.src, train.tgt, val.src, val.tgt, test.src and test.tgt "
    "(UTF-8; one document or summary a line)"
)

_STEMS = {"train": "train", "validation": "val", "test": "test"}


def read_plain_files(folder: Path, *, source_words: int, target_words: int, pairs: int) -> Splits:
    """The first ``pairs`` pairs of each split, cut after so many words.

    Pairs with a blank side are left out (the original data has a few).

    Raises:
        DataError: a file is missing, is not UTF-8, or has no counterpart line for every line.
    """
    return {
        split: _read_split(folder, stem, source_words, target_words, pairs)
        for split, stem in _STEMS.items()
    }


def hash_plain_files(folder: Path) -> str:
    """SHA-256 over the six files."""
    digest = hashlib.sha256()
    for stem in _STEMS.values():
        for suffix in ("src", "tgt"):
            with (folder / f"{stem}.{suffix}").open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _read_split(
    folder: Path, stem: str, source_words: int, target_words: int, limit: int
) -> list[Pair]:
    pairs: list[Pair] = []
    sources = targets = 0
    # Line by line to the end, to compare the counts: the original training file has 600 MB.
    for source, target in zip_longest(
        _lines(folder / f"{stem}.src"), _lines(folder / f"{stem}.tgt")
    ):
        sources += source is not None
        targets += target is not None
        if source and target and len(pairs) < limit:
            document = {FIELD: words(source, source_words)}
            pairs.append(Pair(f"{stem}-{sources}", document, words(target, target_words)))
    if sources != targets:
        raise DataError(
            f"{folder / stem}.src has {sources} lines but {stem}.tgt has {targets}; {LAYOUT}"
        )
    if not pairs:
        raise DataError(f"{folder / stem}.src and .tgt hold no pair; {LAYOUT}")
    return pairs


def _lines(path: Path) -> Iterator[str]:
    try:
        # Only a newline ends a line: documents hold characters such as U+2028.
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.strip()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); {LAYOUT}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {LAYOUT}") from None
