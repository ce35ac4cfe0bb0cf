"""Byte-level BPE (Radford et al. 2019): BART's, or one learned from the training text.

CAB's tokens are those of BART-base. Its ``vocab.json`` and ``merges.txt`` are used where they lie
beside the data. Otherwise as many tokens are learned from the first training pairs: the same
method, so that lengths in tokens and the size of the model stay alike, but other tokens, and so a
likelihood per token that is not comparable across the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cab.errors import DataError, UsageError
from tasks.summarization.pairs import TextPair
from tasks.summarization.vocabulary import END, PADDING, START, UNKNOWN

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 50_265
"""Tokens of BART-base."""

LEARNED_FROM = 10_000
"""Training pairs that tokens are learned from at most."""

FILES = ("vocab.json", "merges.txt")

_SPECIAL = {"<pad>": PADDING, "<unk>": UNKNOWN, "<s>": START, "</s>": END}

_EXPECTED = f"expected {' and '.join(FILES)} of BART-base, or neither"

_INSTALL = "scale paper needs the package tokenizers: pip install 'cab[subwords]'"


class Subwords:
    """Text to token ids and back; the special tokens have the ids of `vocabulary`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, training: Iterable[TextPair], folder: Path | None) -> Subwords:
        """BART's where its files lie in the folder, else learned from the training pairs.

        Raises:
            DataError: the files are not a vocabulary like BART's.
            UsageError: the package tokenizers is not installed.
        """
        if folder is None or not has_bart_files(folder):
            return cls.learned(training)
        return cls.from_files(folder)

    @classmethod
    def learned(cls, training: Iterable[TextPair], size: int = VOCABULARY) -> Subwords:
        """At most ``size`` tokens; words that occur once do not form any."""
        tokenizers = _package()
        learner = _byte_level(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=sorted(_SPECIAL, key=_SPECIAL.__getitem__),
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        learner.train_from_iterator(_texts(islice(training, LEARNED_FROM)), trainer)
        # Around the bare model: a document that holds "</s>" must not end there.
        return cls(_byte_level(learner.model))

    @classmethod
    def from_files(cls, folder: Path) -> Subwords:
        """BART's own files.

        Raises:
            DataError: one of them is missing or is not BART's.
        """
        tokens, merges = read_bart_files(folder)
        return cls(_byte_level(_package().models.BPE({**tokens, **_SPECIAL}, merges)))

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without START and END."""
        return [found.ids for found in self._tokenizer.encode_batch(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens are left out."""
        return self._tokenizer.decode([i for i in ids if i not in _SPECIAL.values()])

    def serialised(self) -> str:
        """Everything that determines the ids, as one text."""
        return self._tokenizer.to_str()


def read_bart_files(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ids of BART's tokens, and its merges in the order of their rank.

    Raises:
        DataError: one of the files is missing or is not BART's.
    """
    content = []
    for name in FILES:
        try:
            content.append((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{folder / name} is missing; {_EXPECTED}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{folder / name} is not UTF-8 ({error.reason}); {_EXPECTED}") from None
        except OSError as error:
            reason = error.strerror
            raise DataError(f"{folder / name} cannot be read ({reason}); {_EXPECTED}") from None
    try:
        tokens = json.loads(content[0])
        numbered = sorted(tokens.values()) == list(range(len(tokens)))
    except (ValueError, AttributeError, TypeError):
        numbered = False
    if not numbered or {tokens.get(name) for name in _SPECIAL} != set(_SPECIAL.values()):
        raise DataError(
            f"{folder / FILES[0]} does not number its tokens from 0, {', '.join(_SPECIAL)} "
            f"among the first four; {_EXPECTED}"
        )
    lines = [line.split() for line in content[1].splitlines() if not line.startswith("#version")]
    merges = [(parts[0], parts[-1]) for parts in lines if parts]
    for left, right in merges:
        if not {left, right, left + right} <= tokens.keys():
            raise DataError(
                f"{folder / FILES[1]} merges {left} and {right}, which {FILES[0]} does not hold; "
                f"{_EXPECTED}"
            )
    return tokens, merges


def has_bart_files(folder: Path) -> bool:
    """Whether the folder holds either of them."""
    return any((folder / name).exists() for name in FILES)


def _package() -> ModuleType:
    try:
        import tokenizers
    except ImportError:
        raise UsageError(_INSTALL) from None
    return tokenizers


def _byte_level(model: object) -> Tokenizer:
    tokenizers = _package()
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _texts(pairs: Iterable[TextPair]) -> Iterator[str]:
    for pair in pairs:
        yield pair.source
        yield pair.target
