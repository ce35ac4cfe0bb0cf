"""Writes how many samples each character of LJSpeech takes, as FastSpeech 2 needs it.

    python -m tasks.tts.align LJSpeech-1.1

The hidden Markov model of `tasks.data.forced_alignment` is trained on `TRAINED_ON` clips spread
over the training split and then applied to all: characters, not phonemes, and of less accuracy than
a trained aligner's (FastSpeech 2 took the Montreal Forced Aligner). To use another aligner's
durations, write ``durations.csv`` yourself; see `tasks.tts.lj_speech`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cab.errors import CabError, UsageError
from tasks.data.forced_alignment import (
    BROAD_CLASSES,
    PAUSE,
    best_path,
    cepstra,
    character_chain,
    durations_of,
    hop,
    train,
)
from tasks.tts.lj_speech import DURATIONS, read_texts, read_wav, split_of
from tasks.tts.spectrogram import LJ_SPEECH

TRAINED_ON = 500


def align(folder: Path, trained_on: int = TRAINED_ON) -> Path:
    """Write the durations of every clip; an existing file is replaced.

    Raises:
        DataError: the folder is not LJSpeech, or a clip is too short for its text.
    """
    texts = read_texts(folder)
    names = [name for name in texts if split_of(name) == "train"]
    chosen = names[:: max(1, len(names) // trained_on)]
    features = [_cepstra(folder, name)[0] for name in chosen]
    everything = np.concatenate(features)
    mean, deviation = everything.mean(0), everything.std(0)
    model, _ = train(
        [(clip - mean) / deviation for clip in features],
        [character_chain(texts[name]) for name in chosen],
        BROAD_CLASSES,
        PAUSE,
    )
    target, part = folder / DURATIONS, folder / f"{DURATIONS}.part"
    with part.open("w", encoding="utf-8") as file:
        for name, text in texts.items():
            frames, samples = _cepstra(folder, name)
            chain = character_chain(text)
            try:
                path, _ = best_path(model, (frames - mean) / deviation, chain)
            except ValueError as error:
                raise UsageError(f"{name} cannot be aligned: {error}") from error
            found = durations_of(path, chain, len(text), samples, hop(LJ_SPEECH.rate))
            file.write(f"{name}|{' '.join(map(str, found))}\n")
    part.replace(target)
    return target


def _cepstra(folder: Path, name: str) -> tuple[NDArray[np.float64], int]:
    samples = read_wav(folder, name).numpy()
    return cepstra(np.rint(samples * 32768).astype(np.int16), LJ_SPEECH.rate), len(samples)


def main() -> int:
    """The command; gives the exit code."""
    if len(sys.argv) != 2:
        print("usage: python -m tasks.tts.align FOLDER", file=sys.stderr)
        return 2
    try:
        print(align(Path(sys.argv[1])))
    except CabError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
