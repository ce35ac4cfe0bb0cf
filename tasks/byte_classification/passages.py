"""Passages of six bodies of English text as bytes, and naive Bayes on them.

Text is reduced to the 27 bytes of the text8 corpus (Mahoney): lower-case letters and single blanks.
Digits, punctuation, capitals and line breaks would give the sources away one byte at a time, verse
by its line breaks, a profile of a country by its digits; the frequencies of letters hardly do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tasks.data.embedded import SPLITS, dataset

SYMBOLS = 27
"""Ids: 0 the blank, 1 to 26 the letters"""

_BLANK, _A, _Z = ord(" "), ord("a"), ord("z")
_FOLD = bytes(code if _A <= code <= _Z else _BLANK for code in bytes(range(256)).lower())


@dataclass(frozen=True)
class Source:
    """One class: the texts of an embedded data set."""

    name: str
    dataset: str
    column: str = "text"
    author: str = ""
    """Only rows of this author; empty: all"""


SOURCES = (
    Source("Shakespeare", "shakespeare", author="Shakespeare, William"),
    Source("Moby Dick", "moby-dick"),
    Source("presidents' messages", "state-of-the-union"),
    Source("Bible", "web-bible"),
    Source("docstrings", "docstrings", column="source"),
    Source("country profiles", "world-factbook"),
)


def fold(text: str) -> Tensor:
    """(N,) uint8 ids of a text; what is not an ASCII letter parts words."""
    folded = b" ".join(text.encode("ascii", "replace").translate(_FOLD).split())
    codes = np.frombuffer(folded, dtype=np.uint8)
    return torch.from_numpy(np.where(codes == _BLANK, 0, codes - (_A - 1)).astype(np.uint8))


def unfold(ids: Tensor) -> str:
    """The text of (N,) ids."""
    return bytes(_BLANK if i == 0 else i + _A - 1 for i in ids.tolist()).decode()


@lru_cache(maxsize=len(SPLITS))
def folded_texts(split: str) -> tuple[Tensor, ...]:
    """The text of every source in a split, its documents one after the other.

    The splits are those of the data sets: by work, chapter, president, book, module, country.
    """
    texts = []
    for source in SOURCES:
        rows = dataset(source.dataset).select(split)
        pieces = rows[source.column].to_pylist()
        if source.author:
            authors = rows["author"].to_pylist()
            pieces = [p for p, who in zip(pieces, authors, strict=True) if who == source.author]
        texts.append(fold(" ".join(pieces)))
    return tuple(texts)


def sources_hash() -> str:
    """SHA-256 of what the passages are cut from."""
    parts = [f"{source} {dataset(source.dataset).data_hash}" for source in SOURCES]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def random_passages(
    texts: tuple[Tensor, ...], length: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Uniform passages of uniformly drawn sources: (count, length) ids and (count,) labels."""
    labels = torch.randint(len(texts), (count,), generator=generator)
    room = torch.tensor([len(text) - length + 1 for text in texts])[labels]
    starts = (torch.rand(count, generator=generator, dtype=torch.float64) * room).long()
    passages = [
        texts[label][start : start + length]
        for label, start in zip(labels.tolist(), starts.tolist(), strict=True)
    ]
    return torch.stack(passages).long(), labels


def even_passages(texts: tuple[Tensor, ...], length: int, most: int) -> tuple[Tensor, Tensor]:
    """Disjoint passages spread evenly, as many of each source: ids and labels as above.

    Args:
        texts: of the sources.
        length: of a passage.
        most: passages of a source at most; fewer where the shortest text has no more.
    """
    count = min(most, *(len(text) // length for text in texts))
    passages = []
    for text in texts:
        places = torch.linspace(0, len(text) // length - 1, count, dtype=torch.float64)
        starts = places.round().long() * length
        passages.append(text[starts[:, None] + torch.arange(length)])
    labels = torch.arange(len(texts)).repeat_interleave(count)
    return torch.cat(passages).long(), labels


def naive_bayes(texts: tuple[Tensor, ...], order: int, passages: Tensor) -> Tensor:
    """(N,) sources under which the n-grams of (N, L) passages are likeliest, as if independent.

    Args:
        texts: training text of the sources.
        order: n of the n-grams.
        passages: to be classified.
    """
    kinds = SYMBOLS**order
    scores = []
    for text in texts:
        counts = _grams(text.long(), order).bincount(minlength=kinds).double() + 1
        scores.append((counts / counts.sum()).log()[_grams(passages, order)].sum(-1))
    return torch.stack(scores).argmax(0)


def _grams(ids: Tensor, order: int) -> Tensor:
    windows = ids.unfold(-1, order, 1)
    return (windows * SYMBOLS ** torch.arange(order - 1, -1, -1)).sum(-1)
