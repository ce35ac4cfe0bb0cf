"""The original data: plain files of documents and summaries, laid out as Multi-News is published.

Within a line, ``NEWLINE_CHAR`` stands for a line break, and ``|||||`` or
``story_separator_special_tag``, by the release, between the articles of a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from cab.errors import DataError
from tasks.data.embedded import SPLITS
from tasks.summarization.pairs import TextPair

LAYOUT = (
    "expected a folder with train.src, train.tgt, val.src, val.tgt, test.src and test.tgt "
    "(UTF-8; one document or summary a line; .src may be named .src.cleaned)"
)

SEPARATOR = "|||||"
"""Between the articles of a cluster, whatever the release calls it."""

_STEMS = {"train": "train", "validation": "val", "test": "test"}


def read_pairs(folder: Path, split: str) -> Iterator[TextPair]:
    """The pairs of a split; those with a blank side are left out (the original has a few).

    Raises:
        DataError: a file is missing, is not UTF-8, or has no counterpart line for every line,
            which shows at the end.
    """
    source_path, target_path = _files(folder, split)
    sources = targets = pairs = 0
    # Line by line: the original training file has 600 MB.
    for source, target in zip_longest(_lines(source_path), _lines(target_path)):
        sources += source is not None
        targets += target is not None
        if source and target:
            pairs += 1
            yield TextPair(f"{split}-{sources}", source, target)
    if sources != targets:
        raise DataError(
            f"{source_path} has {sources} lines but {target_path.name} has {targets}; {LAYOUT}"
        )
    if not pairs:
        raise DataError(f"{source_path} and {target_path.name} hold no pair; {LAYOUT}")


def folder_problems(folder: Path) -> Iterator[str]:
    """Everything in which a folder is not laid out like Multi-News, one line each."""
    for split in SPLITS:
        unreadable = list(_unreadable(folder, split))
        yield from unreadable
        if not unreadable:
            try:
                for _ in read_pairs(folder, split):
                    pass
            except DataError as error:
                yield str(error)


def hash_plain_files(folder: Path) -> str:
    """SHA-256 over the six files."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for path in _files(folder, split):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _unreadable(folder: Path, split: str) -> Iterator[str]:
    for path in _files(folder, split):
        try:
            for _ in _lines(path):
                pass
        except DataError as error:
            yield str(error)


def _files(folder: Path, split: str) -> tuple[Path, Path]:
    stem = _STEMS[split]
    cleaned = folder / f"{stem}.src.cleaned"
    source = cleaned if cleaned.exists() else folder / f"{stem}.src"
    return source, folder / f"{stem}.tgt"


def _lines(path: Path) -> Iterator[str]:
    try:
        # Only a newline ends a line: documents hold characters such as U+2028.
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                text = line.replace("story_separator_special_tag", SEPARATOR)
                yield text.replace("NEWLINE_CHAR", "\n").strip()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); {LAYOUT}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {LAYOUT}") from None
