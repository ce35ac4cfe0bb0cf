"""Where a corpus comes from: an embedded data set, or a folder laid out like PG-19.

PG-19 is 11 GB of text, so a folder is encoded document by document and never held as one string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cab.errors import DataError
from tasks.data.embedded import SPLITS
from tasks.data.embedded import dataset as embedded_dataset
from tasks.data.text import TextCorpus, Vocabulary

FOLDER_LAYOUT = "expected a folder with train/*.txt, validation/*.txt and test/*.txt (UTF-8)"

WHOLE = 1 << 62

EXTRACT = {"train": 16_000_000, "validation": 1_000_000, "test": 1_000_000}
"""Characters that are read of a folder's splits: more than any scale but ``paper`` visits."""

EVERYTHING = {"train": WHOLE, "validation": WHOLE, "test": WHOLE}


def load_corpus(
    dataset: str, data_dir: Path | None, window: int, limits: Mapping[str, int] = EXTRACT
) -> TextCorpus:
    """The embedded corpus of that name, or the one in ``data_dir``.

    Args:
        dataset: an embedded data set with one document per row, in a column ``text``.
        data_dir: folder to read instead; see `read_folder`.
        window: characters that every split must hold at least.
        limits: by split, characters to read of a folder.

    Raises:
        DataError: data missing, altered, too short or of another layout.
    """
    if data_dir is None:
        embedded = embedded_dataset(dataset)
        splits = (embedded.select(name)["text"].to_pylist() for name in SPLITS)
        corpus = TextCorpus.of(*("\n".join(documents) for documents in splits))
    else:
        corpus = read_folder(data_dir, limits)
    for name in SPLITS:
        _require(name, len(getattr(corpus, name)), window)
    return corpus


def read_folder(folder: Path, limits: Mapping[str, int] = EXTRACT) -> TextCorpus:
    """A corpus laid out like PG-19: one text file per document, one folder per split.

    Files are read in the order of their names, those of the training split twice: for the
    vocabulary, and to be encoded with it.

    Raises:
        DataError: a folder or its files are missing, empty or not UTF-8; says which.
    """
    files = {name: _files(folder / name) for name in SPLITS}
    vocabulary = Vocabulary.of_pieces(_pieces(files["train"], limits["train"]))
    encoded = (vocabulary.encode_pieces(_pieces(files[name], limits[name])) for name in SPLITS)
    return TextCorpus(vocabulary, *encoded)


def folder_problems(folder: Path, window: int) -> list[str]:
    """Everything in which a folder is not laid out like PG-19, one line each.

    Args:
        folder: to be looked at; every file is read.
        window: characters that every split must hold at least.
    """
    problems = []
    for name in SPLITS:
        try:
            paths = _files(folder / name)
        except DataError as error:
            problems.append(str(error))
            continue
        unreadable, characters = [], len(paths) - 1
        for path in paths:
            try:
                characters += len(_document(path))
            except DataError as error:
                unreadable.append(str(error))
        if not unreadable:
            try:
                _require(name, characters, window)
            except DataError as error:
                problems.append(f"{folder / name}: {error}")
        problems += unreadable
    return problems


def _require(split: str, characters: int, window: int) -> None:
    if characters < window:
        raise DataError(
            f"the {split} text has {characters} characters, a window needs {window}; "
            f"{FOLDER_LAYOUT}"
        )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; {FOLDER_LAYOUT}")
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError(f"{folder} holds no .txt file; {FOLDER_LAYOUT}")
    return paths


def _document(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); {FOLDER_LAYOUT}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {FOLDER_LAYOUT}") from error


def _pieces(paths: list[Path], room: int) -> Iterator[str]:
    """The documents, a line break before each but the first, until ``room`` characters are read."""
    for index, path in enumerate(paths):
        document = _document(path)[:room]
        yield document if index == 0 else "\n" + document
        room -= len(document) + 1
        if room <= 0:
            return
