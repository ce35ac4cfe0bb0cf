"""Characters for the language models: a vocabulary, three splits of whole documents, windows.

Language modelling and masked language modelling read their text here. The vocabulary is a rule,
not a list: the `MAX_CHARACTERS` commonest characters of the *training* text; every other
character is `UNKNOWN`, in whatever split it stands.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cab.errors import DataError
from tasks.data.embedded import SPLITS
from tasks.data.embedded import dataset as embedded_dataset

MAX_CHARACTERS = 255
"""Largest number of distinct known characters; with `UNKNOWN` an id fits one byte."""

UNKNOWN = 0

FOLDER_LAYOUT = "expected a folder with train/*.txt, validation/*.txt and test/*.txt (UTF-8)"

MAX_FOLDER_CHARACTERS = {"train": 16_000_000, "validation": 1_000_000, "test": 1_000_000}
"""What is read of a folder: PG-19's training split alone is 11 GB, more than any scale visits."""


@dataclass(frozen=True)
class Vocabulary:
    """Known characters, in code-point order; the id of ``characters[i]`` is ``i + 1``."""

    characters: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The commonest characters of a training text; ties go to the lower code point."""
        ranked = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
        return cls("".join(sorted(character for character, _ in ranked[:MAX_CHARACTERS])))

    @property
    def size(self) -> int:
        """Number of ids, `UNKNOWN` included."""
        return len(self.characters) + 1

    def encode(self, text: str) -> EncodedText:
        """Ids and UTF-8 lengths of a text's characters."""
        points = _code_points(text)
        table = np.full(0x110000, UNKNOWN, dtype=np.uint8)
        table[_code_points(self.characters)] = np.arange(1, self.size, dtype=np.uint8)
        lengths = 1 + sum((points >= first).astype(np.uint8) for first in (0x80, 0x800, 0x10000))
        return EncodedText(torch.from_numpy(table[points]), torch.from_numpy(lengths))

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

    def require_window(self, length: int) -> None:
        """Check that every split holds a window of ``length`` characters.

        Raises:
            DataError: names the split that is too short.
        """
        for name in SPLITS:
            held = len(getattr(self, name))
            if held < length:
                raise DataError(
                    f"the {name} text has {held} characters, a window needs {length}; "
                    f"{FOLDER_LAYOUT}"
                )


def load_corpus(dataset: str, data_dir: Path | None, window: int) -> TextCorpus:
    """The embedded corpus of that name, or the one in ``data_dir``.

    Args:
        dataset: an embedded data set with one document per row, in a column ``text``.
        data_dir: folder to read instead; see `read_folder`.
        window: characters that every split must hold at least.

    Raises:
        DataError: data missing, altered, too short or of another layout.
    """
    if data_dir is None:
        embedded = embedded_dataset(dataset)
        splits = (embedded.select(name)["text"].to_pylist() for name in SPLITS)
        corpus = TextCorpus.of(*("\n".join(documents) for documents in splits))
    else:
        corpus = read_folder(data_dir)
    corpus.require_window(window)
    return corpus


def read_folder(folder: Path) -> TextCorpus:
    """A corpus laid out like PG-19: one text file per document, one folder per split.

    Files are read in the order of their names, up to `MAX_FOLDER_CHARACTERS`.

    Raises:
        DataError: a folder or its files are missing, empty or not UTF-8; says which.
    """
    return TextCorpus.of(*(_read_split(folder / name) for name in SPLITS))


def _read_split(folder: Path) -> str:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; {FOLDER_LAYOUT}")
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError(f"{folder} holds no .txt file; {FOLDER_LAYOUT}")
    room = MAX_FOLDER_CHARACTERS[folder.name]
    documents: list[str] = []
    for path in paths:
        try:
            document = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error.reason}); {FOLDER_LAYOUT}") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); {FOLDER_LAYOUT}") from error
        documents.append(document[:room])
        room -= len(documents[-1]) + 1
        if room <= 0:
            break
    return "\n".join(documents)


def _code_points(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
