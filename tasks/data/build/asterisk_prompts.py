"""Builds `asterisk-prompts`: read telephone prompts of one speaker with their texts, a row a clip.

    apt-get download asterisk-core-sounds-en-wav=1.6.1-1 asterisk-core-sounds-en=1.6.1-1
    python -m tasks.data.build.asterisk_prompts asterisk-core-sounds-en-wav_1.6.1-1_all.deb

Both packages lie in one folder; the first holds the recordings, the second their transcripts. It
takes about a minute, nearly all of it for the alignment of characters with sound. The packages are
of Debian 12; snapshot.debian.org keeps them when a release drops them.
"""

from __future__ import annotations

import gzip
import io
import re
import wave
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import soundfile  # type: ignore[import-untyped]  # it ships no types
from numpy.typing import NDArray

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive, SourceArchives
from tasks.data.build.splitting import split_documents
from tasks.data.forced_alignment import (
    BROAD_CLASSES,
    PAUSE,
    Ints,
    best_path,
    cepstra,
    character_chain,
    durations_of,
    hop,
    standardised,
    train,
)

RATE = 8000

RECORDINGS = SourceArchive(
    package="asterisk-core-sounds-en-wav",
    version="1.6.1-1",
    filename="asterisk-core-sounds-en-wav_1.6.1-1_all.deb",
    sha256="2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
)
TRANSCRIPTS = SourceArchive(
    package="asterisk-core-sounds-en",
    version="1.6.1-1",
    filename="asterisk-core-sounds-en_1.6.1-1_all.deb",
    sha256="973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
)
SOUNDS = f"{RECORDINGS.package}/usr/share/asterisk/sounds/en_US_f_Allison/"
TEXTS = f"{TRANSCRIPTS.package}/usr/share/doc/{TRANSCRIPTS.package}/core-sounds-en.txt.gz"

DESCRIPTION = Description(
    name="asterisk-prompts",
    title="Asterisk core prompts, read by Allison Smith",
    description=(
        "Telephone prompts in English, read by one professional speaker, with their texts. One "
        "row per clip: the normalised text, the recording as FLAC (mono, 16 bit, 8000 samples a "
        "second), its length in seconds, and how many samples each character of the text takes."
    ),
    source=SourceArchives(RECORDINGS, TRANSCRIPTS),
    licence="CC-BY-SA-3.0",
    attribution=(
        "Asterisk core sounds 1.6.1, recorded by Allison Smith (http://www.theivrvoice.com), with "
        "financial contributions by Digium, Inc. (http://www.digium.com), copyright 2003-2010 "
        "Allison Smith, under CC-BY-SA-3.0. Changes: a selection of the clips, silence at the "
        "ends cut, texts normalised, durations of characters added."
    ),
    split_rule=(
        "By clip, about 8 % of the samples in validation and 12 % in test, in the order of "
        "SHA-256('0:' + id). Clips of the same words, or with five words in a row in common, stay "
        "together."
    ),
    id_column="id",
)

SHORTEST_S, LONGEST_S = 0.3, 4.3
MOST_CHARACTERS = 100

# Where a clip begins and ends: the frames less than this far below its loudest one, and a margin
# for the consonants that are quieter.
FRAME = RATE // 100
TRIM_DB = 45.0
MARGIN_FRAMES = 2

# Clips that share this many words in a row go to the same split.
SHARED_WORDS = 5

_REMARK = re.compile(r"\[.*?\]|<.*?>|\(.*?\)")
_SYMBOL = re.compile(r"[*#@&/]")
# "PBX", "P.M.", "3D", "Q", but not "A", "I", "can't" or "don't".
_SPELLED = re.compile(
    r"[A-Z]{2,}|\b[A-Z]\.|\d[A-Za-z]|[A-Za-z]\d|(?<!['\w])(?![AaIi]\b)[A-Za-z]\b(?!')"
)
_PREFIX = re.compile(r"\b(re|de|un)-")
_MISSPELLINGS = {
    "exclaimation": "exclamation",
    "fourtieth": "fortieth",
    "un-indentified": "unidentified",
    "witheld": "withheld",
}
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True)
class _Clip:
    text: str
    samples: NDArray[np.int16]


def build(members: Mapping[str, bytes]) -> Product:
    """One row per clip whose spoken words the transcript gives, in the order of the ids."""
    transcripts = _transcripts(gzip.decompress(members[TEXTS]).decode("utf-8"))
    clips: dict[str, _Clip] = {}
    left_out = {}
    for path in sorted(members):
        if not (path.startswith(SOUNDS) and path.endswith(".wav")):
            continue
        name = path.removeprefix(SOUNDS).removesuffix(".wav")
        clip = _Clip(normalised(transcripts[name]), trimmed(_read(members[path])))
        if reason := _objection(transcripts[name], clip):
            left_out[name] = reason
        else:
            clips[name] = clip
    samples = {name: len(clip.samples) for name, clip in clips.items()}
    whole = sum(samples.values())
    durations, trust = _align(clips)
    table = pa.table(
        {
            "id": list(clips),
            "text": [clip.text for clip in clips.values()],
            "audio": pa.array([_flac(clip.samples) for clip in clips.values()], pa.binary()),
            "seconds": pa.array([n / RATE for n in samples.values()], pa.float32()),
            "durations": pa.array(durations, pa.list_(pa.int32())),
        }
    )
    return Product(
        table=table,
        splits=split_documents(
            samples,
            {"validation": round(0.08 * whole), "test": round(0.12 * whole)},
            groups(clips),
            tolerance=0.03,
        ),
        left_out=left_out,
        notes=[
            "Text: lower case; a digit is written out; '!' is a full stop, ';', ':' and '...' are "
            "commas, a hyphen is a space (re-, de- and un- are joined); no full stop or comma at "
            "the ends; remarks in brackets dropped; four misspellings corrected. The characters "
            "are a-z, apostrophe, space, comma, full stop and question mark.",
            "Sound: silence is cut to the frames of 10 ms within 45 dB of the loudest one, and two "
            "more at each end. The recordings are telephone speech, so nothing lies above 4 kHz.",
            "Durations are not measured by hand: they are the Viterbi path of a hidden Markov "
            "model of characters (tasks/data/forced_alignment.py) that was trained on all "
            f"clips of the table. {trust}",
            "Durations are multiples of 5 ms but for the last of a clip. A letter takes at least "
            "10 ms; a space, comma, full stop or question mark takes the silence that is there, "
            "mostly none, and an apostrophe none, so that many durations are zero.",
            "Most prompts speak of telephone calls, and short phrases such as 'the conference' "
            "recur in every split. Some words were recorded twice.",
            f"FLAC by libsndfile {soundfile.__libsndfile_version__}.",
        ],
    )


def normalised(transcript: str) -> str:
    """The spoken words in lower case, with commas, full stops and question marks between them."""
    text = _REMARK.sub("", transcript).lower()
    for wrong, right in _MISSPELLINGS.items():
        text = text.replace(wrong, right)
    text = _PREFIX.sub(r"\1", text).replace("-", " ").replace("!", ".")
    text = re.sub(r"\d", lambda digit: _DIGITS[int(digit[0])], text)
    text = re.sub(r"[;:]|\.{2,}", ",", text)
    text = re.sub(r"\s+(?=[,.?])", "", " ".join(text.split()))
    return text.strip(" ,.")


def trimmed(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """The recording without the silence at its ends."""
    frames = len(samples) // FRAME
    power = (samples[: frames * FRAME].astype(np.float64).reshape(frames, FRAME) ** 2).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-TRIM_DB / 10))
    first, last = max(loud[0] - MARGIN_FRAMES, 0), loud[-1] + 1 + MARGIN_FRAMES
    return samples[first * FRAME : last * FRAME]


def groups(clips: Mapping[str, _Clip]) -> list[list[str]]:
    """Clips with the same words or with `SHARED_WORDS` in a row in common, as groups of ids."""
    group_of = {name: {name} for name in clips}
    first_with: dict[tuple[str, ...], str] = {}
    for name, clip in clips.items():
        words = tuple(re.findall(r"[a-z']+", clip.text))
        for run_of_words in {words, *_runs(words)}:
            other = first_with.setdefault(run_of_words, name)
            merged = group_of[name] | group_of[other]
            group_of.update(dict.fromkeys(merged, merged))
    found = {id(group): sorted(group) for group in group_of.values() if len(group) > 1}
    return sorted(found.values())


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(len(words) - SHARED_WORDS + 1):
        yield words[start : start + SHARED_WORDS]


def _transcripts(content: str) -> dict[str, str]:
    """Transcript by name of the recording; the lines are "name: transcript"."""
    pairs = (line.split(":", 1) for line in content.splitlines() if line and line[0] != ";")
    return {name.strip(): transcript.strip() for name, transcript in pairs}


def _objection(transcript: str, clip: _Clip) -> str:
    """Why a clip is left out; nothing where it is not."""
    spoken = _REMARK.sub("", transcript)
    seconds = len(clip.samples) / RATE
    if not clip.text:
        return "no speech"
    if _SYMBOL.search(spoken):
        return "the transcript writes a symbol, not the word that is said for it"
    if len(clip.text) == 1 or _SPELLED.search(spoken):
        return "letters that are spelled, or an acronym whose pronunciation is not given"
    if re.search(r"\d\d", spoken):
        return "a number in digits"
    if not SHORTEST_S <= seconds <= LONGEST_S:
        return f"{seconds:.2f} s long; the limits are {SHORTEST_S} and {LONGEST_S} s"
    if len(clip.text) > MOST_CHARACTERS:
        return f"{len(clip.text)} characters long; the limit is {MOST_CHARACTERS}"
    return ""


def _align(clips: Mapping[str, _Clip]) -> tuple[list[Ints], str]:
    """Samples of each character of every clip, and a line on how far they can be trusted."""
    features = standardised([cepstra(clip.samples, RATE) for clip in clips.values()])
    chains = [character_chain(clip.text) for clip in clips.values()]

    def durations(trained_on: slice) -> tuple[list[Ints], list[float]]:
        model, history = train(features[trained_on], chains[trained_on], BROAD_CLASSES, PAUSE)
        found = []
        for frames, chain, clip in zip(features, chains, clips.values(), strict=True):
            path, _ = best_path(model, frames, chain)
            found.append(durations_of(path, chain, len(clip.text), len(clip.samples), hop(RATE)))
        return found, history

    chosen, history = durations(slice(None))
    halves = [durations(slice(start, None, 2))[0] for start in (0, 1)]
    # The end of a text is the end of its clip whatever the model.
    ends = [np.concatenate([np.cumsum(clip)[:-1] for clip in half]) for half in halves]
    apart_ms = np.abs(ends[0] - ends[1]) * 1000 / RATE
    return chosen, (
        f"Training raised the log likelihood per frame from {history[0]:.2f} to "
        f"{history[-1]:.2f}. Models trained on either half of the clips put "
        f"{np.mean(apart_ms <= 20):.0%} of the ends of characters within 20 ms of each other and "
        f"{np.mean(apart_ms <= 50):.0%} within 50 ms; some words, such as 'goodbye', are off."
    )


def _read(content: bytes) -> NDArray[np.int16]:
    with wave.open(io.BytesIO(content)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"expected 16-bit mono at {RATE} Hz, found {file.getparams()}")
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


def _flac(samples: NDArray[np.int16]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return buffer.getvalue()


if __name__ == "__main__":
    run(DESCRIPTION, build)
