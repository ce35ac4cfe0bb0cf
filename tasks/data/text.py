"""Characters for the language models: a vocabulary, three splits of whole documents, windows.

Language modelling and masked language modelling read their text here. The vocabulary is a rule,
not a list: the `MAX_CHARACTERS` commonest characters of the *training* text; every other
character is `UNKNOWN`, in whatever split it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MAX_CHARACTERS = 255
"""Largest number of distinct known characters; with `UNKNOWN` an id fits one byte."""

UNKNOWN = 0

_CODE_POINTS = 0x110000
_LONGER_FROM = (0x80, 0x800, 0x10000)
"""Code points from which UTF-8 takes two, three and four bytes"""


@dataclass(frozen=True)
class Vocabulary:
    """Known characters, in code-point order; the id of ``characters[i]`` is ``i + 1``."""

    characters: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The commonest characters of a training text; ties go to the lower code point."""
        return cls.of_pieces([text])

    @classmethod
    def of_pieces(cls, pieces: Iterable[str]) -> Vocabulary:
        """That of a text which comes in pieces."""
        counts = np.zeros(_CODE_POINTS, dtype=np.int64)
        for piece in pieces:
            counts += np.bincount(_code_points(piece), minlength=_CODE_POINTS)
        ranked = np.argsort(-counts, kind="stable")[:MAX_CHARACTERS]
        return cls("".join(map(chr, sorted(ranked[counts[ranked] > 0]))))

    @property
    def size(self) -> int:
        """Number of ids, `UNKNOWN` included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> EncodedText:
        """Ids and UTF-8 lengths of a text's characters."""
        return self.encode_pieces([text])

    def encode_pieces(self, pieces: Iterable[str]) -> EncodedText:
        """That of a text which comes in pieces."""
        table = np.full(_CODE_POINTS, UNKNOWN, dtype=np.uint8)
        table[_code_points(self.characters)] = np.arange(1, self.size, dtype=np.uint8)
        ids, lengths = [], []
        for piece in pieces:
            points = _code_points(piece)
            ids.append(table[points])
            lengths.append(1 + sum((points >= n).astype(np.uint8) for n in _LONGER_FROM))
        return EncodedText(
            torch.from_numpy(np.concatenate(ids)), torch.from_numpy(np.concatenate(lengths))
        )

    def decode(self, ids: Tensor) -> str:
        """Text of (N,) ids; an unknown character is U+FFFD."""
        return "".join(self.characters[i - 1] if i else "\ufffd" for i in ids.tolist())


@dataclass(frozen=True)
class EncodedText:
    """A text as numbers."""

    ids: Tensor
    """(N,) uint8"""
    utf8_bytes: Tensor
    """(N,) uint8: bytes that each character takes, 1 to 4"""

    def __len__(self) -> int:
        return len(self.ids)

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """(B, length) int64 ids that follow each of the (B,) ``starts``."""
        return self.ids[starts[:, None] + torch.arange(length)].long()

    def random_starts(self, length: int, count: int, generator: torch.Generator) -> Tensor:
        """(count,) starts of training windows of ``length``, uniform."""
        return torch.randint(len(self) - length + 1, (count,), generator=generator)

    def even_starts(self, length: int, count: int) -> Tensor:
        """Starts of at most ``count`` disjoint windows, spread evenly over the whole text."""
        available = len(self) // length
        chosen = torch.linspace(0, available - 1, min(count, available), dtype=torch.float64)
        return chosen.round().long() * length


@dataclass(frozen=True)
class TextCorpus:
    """Three splits under one vocabulary."""

    vocabulary: Vocabulary
    train: EncodedText
    validation: EncodedText
    test: EncodedText

    @classmethod
    def of(cls, train: str, validation: str, test: str) -> TextCorpus:
        """Encode three texts with the vocabulary of the first."""
        vocabulary = Vocabulary.of(train)
        encode = vocabulary.encode
        return cls(vocabulary, encode(train), encode(validation), encode(test))

    def digest(self) -> str:
        """SHA-256 of the vocabulary and of every split's numbers."""
        sha = hashlib.sha256(self.vocabulary.characters.encode())
        for text in (self.train, self.validation, self.test):
            sha.update(len(text).to_bytes(8, "little"))
            sha.update(text.ids.numpy().tobytes())
            sha.update(text.utf8_bytes.numpy().tobytes())
        return sha.hexdigest()


def _code_points(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
