"""The original data: LJSpeech 1.1 (Ito and Johnson 2017) as its archive unpacks.

    metadata.csv     id|transcript|normalised transcript, a line each, no header, no quoting
    wavs/ID.wav      22,050 Hz, mono, 16 bit
    durations.csv    id|samples of each character, for FastSpeech 2 only

LJSpeech has no durations. ``python -m tasks.tts.align FOLDER`` writes them once, from this
project's own forced alignment; those of another aligner are read in the same form. The characters
are those of the normalised transcript after `tasks.tts.text.plain`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import soundfile  # type: ignore[import-untyped]  # it ships no types
import torch
from torch import Tensor

from cab.errors import DataError
from tasks.data.speech import Clip
from tasks.tts.spectrogram import LJ_SPEECH
from tasks.tts.text import plain

LAYOUT = (
    "expected LJSpeech-1.1 as unpacked: metadata.csv (id|transcript|normalised transcript) and "
    "wavs/ID.wav (22,050 Hz, mono)"
)

DURATIONS = "durations.csv"

ALIGN = "write it with `python -m tasks.tts.align {folder}`"

_SPLITS = {"LJ001": "test", "LJ002": "test", "LJ003": "validation"}
"""By the book that an id begins with, as in fairseq; every other is for training"""


def split_of(name: str) -> str:
    """The split of an utterance's id."""
    return _SPLITS.get(name.split("-")[0], "train")


def read_folder(
    folder: Path, *, durations: bool, limits: dict[str, int] | None = None
) -> dict[str, list[Clip]]:
    """The clips of each split, in the order of metadata.csv.

    Args:
        folder: see the module.
        durations: whether ``durations.csv`` is read; otherwise clips have none.
        limits: most clips by split; None: all.

    Raises:
        DataError: the first problem that is met; says what the layout should be.
    """
    texts = read_texts(folder)
    lengths = _durations(folder) if durations else {}
    clips: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for name, text in texts.items():
        split = split_of(name)
        if limits is not None and len(clips[split]) >= limits[split]:
            continue
        samples = read_wav(folder, name)
        own = torch.zeros(0, dtype=torch.int64)
        if durations:
            own = _checked(folder, name, text, len(samples), lengths)
        clips[split].append(Clip(name, text, samples, own))
    for split, members in clips.items():
        if not members:
            raise DataError(f"{folder / 'metadata.csv'} has no {split} clip; {LAYOUT}")
    return clips


def folder_problems(folder: Path) -> Iterator[str]:
    """Everything in which a folder is not LJSpeech, one line each; every file is opened.

    A missing durations.csv is no problem by itself, since most patterns need none.
    """
    try:
        texts = read_texts(folder)
    except DataError as error:
        yield str(error)
        return
    missing = {"train", "validation", "test"} - {split_of(name) for name in texts}
    for split in sorted(missing):
        yield f"{folder / 'metadata.csv'} has no {split} clip; {LAYOUT}"
    lengths: dict[str, list[int]] = {}
    if (folder / DURATIONS).exists():
        try:
            lengths = _durations(folder)
        except DataError as error:
            yield str(error)
    for name, text in texts.items():
        try:
            samples = read_wav(folder, name)
            if lengths:
                _checked(folder, name, text, len(samples), lengths)
        except DataError as error:
            yield str(error)


def hash_folder(folder: Path) -> str:
    """SHA-256 over metadata, durations if there are any, and all recordings."""
    digest = hashlib.sha256()
    paths = [folder / "metadata.csv", folder / DURATIONS, *sorted((folder / "wavs").glob("*.wav"))]
    for path in paths:
        if path.exists():
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def read_wav(folder: Path, name: str) -> Tensor:
    """(N,) samples in -1..1.

    Raises:
        DataError: missing, not readable, or of another rate or number of channels.
    """
    path = folder / "wavs" / f"{name}.wav"
    if not path.exists():
        raise DataError(f"{path} is missing; {LAYOUT}")
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} cannot be read ({error.error_string}); {LAYOUT}") from error
    if rate != LJ_SPEECH.rate or samples.ndim != 1:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        raise DataError(f"{path} has {rate} Hz and {channels} channels; {LAYOUT}")
    if len(samples) < LJ_SPEECH.window:
        raise DataError(f"{path} has {len(samples)} samples, a frame needs {LJ_SPEECH.window}")
    return torch.from_numpy(samples)


def read_texts(folder: Path) -> dict[str, str]:
    """Plain texts by id, in the order of metadata.csv.

    Raises:
        DataError: metadata.csv is missing or malformed; names the line.
    """
    texts: dict[str, str] = {}
    for number, line in _lines(folder / "metadata.csv"):
        fields = line.split("|")
        where = f"line {number} of {folder / 'metadata.csv'}"
        if len(fields) != 3:
            raise DataError(f"{where} has {len(fields)} fields, not 3; {LAYOUT}")
        name, text = fields[0], plain(fields[2])
        if not any(character.isalpha() for character in text):
            raise DataError(f"{where} has no words; {LAYOUT}")
        if name in texts:
            raise DataError(f"{where} names {name} again; {LAYOUT}")
        texts[name] = text
    if not texts:
        raise DataError(f"{folder / 'metadata.csv'} is empty; {LAYOUT}")
    return texts


def _durations(folder: Path) -> dict[str, list[int]]:
    found = {}
    path = folder / DURATIONS
    if not path.exists():
        raise DataError(
            f"{path} is missing and FastSpeech 2 needs it; {ALIGN.format(folder=folder)}"
        )
    for number, line in _lines(path):
        name, bar, numbers = line.partition("|")
        try:
            values = [int(value) for value in numbers.split()]
        except ValueError:
            values = []
        if not bar or not values or min(values) < 0:
            raise DataError(f"line {number} of {path} is not ID|samples of each character")
        found[name] = values
    return found


def _checked(
    folder: Path, name: str, text: str, samples: int, lengths: dict[str, list[int]]
) -> Tensor:
    own = lengths.get(name)
    path, remedy = folder / DURATIONS, ALIGN.format(folder=folder)
    if own is None:
        raise DataError(f"{path} has no line for {name}; {remedy}")
    if len(own) != len(text) or sum(own) != samples:
        raise DataError(
            f"{path}: {name} has {len(own)} durations of {sum(own)} samples for {len(text)} "
            f"characters and {samples} samples; {remedy}"
        )
    return torch.tensor(own)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {LAYOUT}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); {LAYOUT}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {LAYOUT}") from None
