"""The transcribed speech: its build, the alignment of characters with sound, and its loader."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import string
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cab.errors import DataError
from tasks.data.build import asterisk_prompts, forced_alignment
from tasks.data.build.asterisk_prompts import normalised, trimmed
from tasks.data.build.forced_alignment import (
    BROAD_CLASSES,
    PAUSE,
    Chain,
    Floats,
    Ints,
    Model,
    best_path,
    cepstra,
    character_chain,
    durations_of,
    standardised,
    train,
)
from tasks.data.build.source_archive import SourceArchive, SourceArchives
from tasks.data.embedded import SPLITS, dataset
from tasks.data.speech import Clip, SpeechCorpus, load_speech

NAME = "asterisk-prompts"
CHARACTERS = set(string.ascii_lowercase + " ',.?")


@pytest.fixture(scope="module")
def speech() -> SpeechCorpus:
    return load_speech()


def clips_of(speech: SpeechCorpus) -> list[Clip]:
    return [*speech.train, *speech.validation, *speech.test]


def words_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z']+", text))


# The data set


def test_splits_are_disjoint_and_cover_the_clips() -> None:
    data = dataset(NAME)
    members = [clip for split in SPLITS for clip in data.split(split)]
    assert sorted(members) == sorted(data.table()["id"].to_pylist())
    assert len(set(members)) == len(members) == data.rows
    assert not set(data.left_out) & set(members)
    assert len(data.left_out) + data.rows == 568, "every recording of the package is accounted for"


def test_held_out_splits_have_their_share_of_the_sound(speech: SpeechCorpus) -> None:
    seconds = [sum(len(clip.samples) for clip in getattr(speech, split)) for split in SPLITS]
    shares = [part / sum(seconds) for part in seconds]
    assert shares == pytest.approx([0.80, 0.08, 0.12], abs=0.005)


def test_no_words_and_no_recording_stand_in_two_splits(speech: SpeechCorpus) -> None:
    for kind in ("words", "five words", "recording"):
        seen = []
        for split in SPLITS:
            keys: set[object] = set()
            for clip in getattr(speech, split):
                words = words_of(clip.text)
                if kind == "words":
                    keys.add(words)
                elif kind == "five words":
                    keys |= {words[i : i + 5] for i in range(len(words) - 4)}
                else:
                    keys.add(clip.samples.numpy().tobytes())
            seen.append(keys)
        assert not any(one & other for one, other in itertools.combinations(seen, 2)), kind


def test_loader_decodes_every_clip(speech: SpeechCorpus) -> None:
    rows = {row["id"]: row for row in dataset(NAME).table().to_pylist()}
    assert speech.rate == 8000
    assert tuple(clip.id for clip in speech.test) == dataset(NAME).split("test")
    for clip in clips_of(speech):
        assert clip.samples.dtype.is_floating_point
        assert 0.02 < clip.samples.abs().max() <= 1.0
        assert len(clip.samples) / speech.rate == pytest.approx(rows[clip.id]["seconds"], abs=1e-6)
        assert 0.3 <= rows[clip.id]["seconds"] <= 4.3
        assert len(clip.durations) == len(clip.text) <= 100
        assert int(clip.durations.sum()) == len(clip.samples)


def test_texts_are_normalised(speech: SpeechCorpus) -> None:
    texts = [clip.text for clip in clips_of(speech)]
    assert set("".join(texts)) == CHARACTERS
    for text in texts:
        assert len(text) > 1
        assert text == text.strip(" ,.")
        assert not re.search(r"  | [,.?]|[,.?][^ ]|[,.?] [,.?]", text), text
        assert all(len(word) > 1 or word in "ai" for word in words_of(text)), text
    assert "press five to leave a message" in texts


def test_clips_begin_and_end_with_sound(speech: SpeechCorpus) -> None:
    """The loudest 10 ms of either end are within 45 dB of the loudest of the clip."""
    for clip in clips_of(speech):
        power = (clip.samples[: len(clip.samples) // 80 * 80].double().reshape(-1, 80) ** 2).mean(1)
        limit = power.max() * 10**-4.5
        assert power[:3].max() > limit
        assert power[-3:].max() > limit


# The durations


def test_every_letter_sounds_and_apostrophes_do_not(speech: SpeechCorpus) -> None:
    for clip in clips_of(speech):
        for character, samples in zip(clip.text, clip.durations.tolist(), strict=True):
            if character in string.ascii_lowercase:
                assert samples >= 2 * 40
            elif character == "'":
                assert samples == 0
        assert not (clip.durations % 40).any()


def test_mean_durations_are_plausible(speech: SpeechCorpus) -> None:
    """Full vowels are longer than stops, silent letters short, pauses longest at full stops."""
    means = {}
    for group in ("aio", "bdt", "e", "h", "s", " ", ",", "."):
        found = [
            samples / speech.rate
            for clip in clips_of(speech)
            for character, samples in zip(clip.text, clip.durations.tolist(), strict=True)
            if character in group
        ]
        means[group] = float(np.mean(found))
    assert 0.085 < means["aio"] < 0.12
    assert 0.05 < means["bdt"] < 0.075
    assert means["e"] < means["bdt"], "many an e is silent"
    assert means["h"] < means["bdt"], "h is mostly the second half of th, ch and sh"
    assert means["bdt"] < means["s"] < means["aio"]
    assert means[" "] < 0.02 < 0.1 < means[","] < means["."] < 0.3


def test_hissing_and_silent_frames_belong_to_letters_that_hiss_or_are_silent(
    speech: SpeechCorpus,
) -> None:
    """An independent check: what the spectrum of a frame shows against the character it is in."""
    frequencies = np.fft.rfftfreq(256, 1 / speech.rate)
    hisses, stops, vowels = [], [], []
    for clip in clips_of(speech):
        samples = clip.samples.double().numpy()
        frames = samples[: len(samples) // 80 * 80].reshape(-1, 80) * np.hanning(80)
        power = np.abs(np.fft.rfft(frames, 256)) ** 2 + 1e-12
        low, high = power[:, frequencies < 1000].sum(1), power[:, frequencies > 2500].sum(1)
        level = 10 * np.log10(power.sum(1) / power.sum(1).max())
        tilt = 10 * np.log10(high / low)
        ends = np.cumsum(clip.durations.numpy())
        owners = np.searchsorted(ends, np.arange(len(frames)) * 80 + 40, side="right")
        characters = np.array(list(clip.text))[owners]
        inner = slice(3, -3)
        hisses += list(characters[(tilt > 10) & (level > -30)])
        vowels += list(characters[(tilt < -15) & (level > -10)])
        stops += list(characters[inner][level[inner] < -45])
    for found, expected, share in (
        (hisses, "sczxtfhgj", 0.93),
        (vowels, "aeiouylrwmn", 0.93),
        (stops, " ,.?bcdgkpqtsx", 0.9),
    ):
        assert len(found) > 1000
        assert np.mean([character in expected for character in found]) > share, expected


@pytest.mark.slow
def test_durations_come_from_the_alignment_of_the_table() -> None:
    """About a minute and a half: training again gives the same durations."""
    rows = dataset(NAME).table().to_pylist()
    recordings = {clip.id: clip for clip in clips_of(load_speech())}
    clips = [(recordings[row["id"]].samples * 32768).short().numpy() for row in rows]
    features = standardised([cepstra(clip, 8000) for clip in clips])
    chains = [character_chain(row["text"]) for row in rows]
    model, history = train(features, chains, BROAD_CLASSES, PAUSE)
    assert all(later > earlier - 0.01 for earlier, later in itertools.pairwise(history))
    same = []
    for row, clip, frames, chain in zip(rows, clips, features, chains, strict=True):
        path, _ = best_path(model, frames, chain)
        found = durations_of(path, chain, len(row["text"]), len(clip))
        same += list(found == np.array(row["durations"]))
    # Another linear algebra library may break a tie in another way.
    assert np.mean(same) > 0.995


# Forced alignment


def synthetic(seed: int, count: int) -> tuple[list[Floats], list[Chain], list[Ints]]:
    """Utterances of a known model of ten letters and silence, with their true paths.

    A letter's three parts differ a little, letters differ a lot; classes are loose families.
    """
    random = np.random.default_rng(seed)
    letters = "aeiostmnlr"
    centres = {letter: random.normal(0, 2.0, 8) for letter in letters}
    for letter in letters:
        centres[letter][0] = abs(centres[letter][0])
    drift = random.normal(0, 0.4, 8)
    features, chains, paths = [], [], []
    for _ in range(count):
        words = ["".join(random.choice(list(letters), random.integers(2, 6))) for _ in range(3)]
        chain = character_chain(" ".join(words))
        path, rows = [], []
        for place, (state, skippable) in enumerate(zip(chain.states, chain.skippable, strict=True)):
            if skippable and random.random() < (0.5 if state == PAUSE else 0.3):
                continue
            frames = random.integers(1, 8) if state != PAUSE else random.integers(3, 15)
            letter, part = divmod(int(state), 3)
            centre = (
                np.r_[-6.0, np.zeros(7)]
                if state == PAUSE
                else centres[string.ascii_lowercase[letter]] + (part - 1) * drift
            )
            rows += list(centre + random.normal(0, 0.7, (frames, 8)))
            path += [place] * frames
        features.append(np.array(rows))
        chains.append(chain)
        paths.append(np.array(path))
    return standardised(features), chains, paths


def test_alignment_finds_the_truth_from_a_flat_start() -> None:
    features, chains, paths = synthetic(seed=0, count=60)
    model, history = train(features, chains, BROAD_CLASSES, PAUSE, class_rounds=4, rounds=8)
    assert all(later > earlier - 0.01 for earlier, later in itertools.pairwise(history))
    assert history[-1] > history[0] + 0.5
    gaps = []
    for frames, chain, truth in zip(features, chains, paths, strict=True):
        found, _ = best_path(model, frames, chain)
        characters = int(chain.owners.max()) + 1
        ends = [
            np.cumsum(durations_of(path, chain, characters, len(frames))) for path in (found, truth)
        ]
        gaps += list(np.abs(ends[0] - ends[1])[:-1])
    assert np.mean(np.array(gaps) == 0) > 0.95
    assert np.mean(np.array(gaps) <= 2) > 0.99


def test_training_is_deterministic() -> None:
    features, chains, _ = synthetic(seed=1, count=8)
    one, other = (
        train(features, chains, BROAD_CLASSES, PAUSE, class_rounds=2, rounds=2) for _ in range(2)
    )
    assert one[1] == other[1]
    assert np.array_equal(one[0].means, other[0].means)


@pytest.mark.parametrize("text", ["at", "a b", "it's"])
def test_best_path_is_the_best_of_all(text: str) -> None:
    """Against every way through a chain, its probability written out."""
    random = np.random.default_rng(2)
    chain = character_chain(text)
    count = PAUSE + 1
    model = Model(
        random.normal(size=(count, 3)),
        random.uniform(0.5, 2, (count, 3)),
        random.uniform(0.2, 0.9, count),
        random.uniform(0.2, 0.8, count),
    )
    features = random.normal(size=(8, 3))
    densities = model.log_likelihoods(features)
    expected = (features[2] - model.means[5]) ** 2 / model.variances[5]
    expected = -0.5 * (expected + np.log(2 * np.pi * model.variances[5])).sum()
    assert densities[2, 5] == pytest.approx(expected, abs=1e-9)

    best = (-np.inf, ())
    places = range(len(chain.states))
    for used in itertools.product((False, True), repeat=len(places)):
        kept = [place for place in places if used[place]]
        if any(not used[p] and not chain.skippable[p] for p in places) or len(kept) > len(features):
            continue
        for cuts in itertools.combinations(range(1, len(features)), len(kept) - 1):
            lengths = np.diff([0, *cuts, len(features)])
            path = np.repeat(kept, lengths)
            score = float(densities[np.arange(len(features)), chain.states[path]].sum())
            for place in places:
                state = chain.states[place]
                # The last silence is free to be left out: the text is over.
                if chain.skippable[place] and (used[place] or place < places[-1]):
                    taken = model.skip[state] if not used[place] else 1 - model.skip[state]
                    score += np.log(taken)
            for place, length in zip(kept, lengths, strict=True):
                score += (length - 1) * np.log(model.stay[chain.states[place]])
                if place != kept[-1]:
                    score += np.log(1 - model.stay[chain.states[place]])
            best = max(best, (score, tuple(path)))
    path, score = best_path(model, features, chain)
    assert score == pytest.approx(best[0], abs=1e-9)
    assert tuple(path) == best[1]


def test_chain_of_a_text() -> None:
    chain = character_chain("a'b, c")
    a, b, c = (list(range(3 * n, 3 * n + 3)) for n in range(3))
    assert chain.states.tolist() == [PAUSE, *a, *b, PAUSE, *c, PAUSE]
    assert chain.owners.tolist() == [0, 0, 0, 0, 2, 2, 2, 3, 5, 5, 5, 5]
    inner = [False, True, False]
    assert chain.skippable.tolist() == [True, *inner, *inner, True, *inner, True]
    assert character_chain("ab?").owners.tolist() == [0, 0, 0, 0, 1, 1, 1, 2]


def test_durations_count_every_sample() -> None:
    chain = character_chain("ab")
    path = np.array([0, 1, 3, 3, 4, 6, 7])
    assert durations_of(path, chain, 2, 7 * 40 + 13).tolist() == [160, 3 * 40 + 13]


def test_too_few_frames_are_refused() -> None:
    count = PAUSE + 1
    model = Model(
        np.zeros((count, 1)), np.ones((count, 1)), np.full(count, 0.5), np.full(count, 0.5)
    )
    with pytest.raises(ValueError, match="3 frames cannot hold a chain of 8 positions"):
        best_path(model, np.zeros((3, 1)), character_chain("ab"))


def test_cepstra_follow_the_sound() -> None:
    """A loud half and a silent half: the first coefficient drops at the middle frame."""
    times = np.arange(8000) / 8000
    tone = (10_000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
    tone[4000:] = 0
    features = cepstra(tone, 8000)
    assert features.shape == (200, 3 * forced_alignment.CEPSTRA)
    loudness = features[:, 0]
    assert loudness[5:95].min() > loudness[105:].max() + 10
    slope = features[:, forced_alignment.CEPSTRA]
    assert abs(int(slope.argmin()) - 100) <= 2
    assert slope[20:80] == pytest.approx(np.zeros(60), abs=0.1)


# The build


@pytest.mark.parametrize(
    ("transcript", "text"),
    [
        ("Press 5 to leave a message", "press five to leave a message"),
        ("One moment, please.", "one moment, please"),
        ("...to lock, or unlock the conference.", "to lock, or unlock the conference"),
        ("To leave a message: press star;  I'm  here!", "to leave a message, press star, i'm here"),
        ("Invalid! Mailbox?", "invalid. mailbox?"),
        ("To re-record it, call-forward.", "to rerecord it, call forward"),
        ("dash [-]", "dash"),
        ("[sound of monkeys screaming]", ""),
        ("fourtieth", "fortieth"),
    ],
)
def test_transcripts_are_normalised(transcript: str, text: str) -> None:
    assert normalised(transcript) == text


@pytest.mark.parametrize(
    ("transcript", "reason"),
    [
        ("A.M.", "spelled"),
        ("3D audio disabled", "spelled"),
        ("Use the 7 key for Q.", "spelled"),
        ("q", "spelled"),
        ("press # to exit", "symbol"),
        ("Dial 500", "digits"),
        ("(1 second of silence)", "no speech"),
        ("I can't, it's a 5.", ""),
    ],
)
def test_unclear_transcripts_are_left_out(transcript: str, reason: str) -> None:
    clip = asterisk_prompts._Clip(normalised(transcript), np.zeros(8000, np.int16))
    objection = asterisk_prompts._objection(transcript, clip)
    assert reason in objection
    assert bool(objection) == bool(reason)


def test_silence_is_cut() -> None:
    sound = np.zeros(8000, np.int16)
    sound[3000:5000] = 10_000
    sound[5600] = 2  # far below the limit
    kept = trimmed(sound)
    # Whole frames of 80 samples from 3000 // 80 = 37 to 62, with two more on each side.
    assert len(kept) == (63 + 2 - (37 - 2)) * 80
    assert np.flatnonzero(kept)[0] == 3000 - 35 * 80


def test_clips_that_share_words_are_one_group() -> None:
    texts = {
        "a": "please enter your agent number now",
        "b": "to go on, please enter your agent number",
        "c": "goodbye",
        "d": "goodbye?",
        "e": "enter your agent number",
    }
    clips = {
        name: asterisk_prompts._Clip(text, np.zeros(1, np.int16)) for name, text in texts.items()
    }
    assert asterisk_prompts.groups(clips) == [["a", "b"], ["c", "d"]]


# The archives


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/link")
        link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
        archive.addfile(link)
    return buffer.getvalue()


def deb_of(members: dict[str, bytes]) -> bytes:
    content = b"!<arch>\n"
    for name, member in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n"
        content += header.encode() + member + b"\n" * (len(member) % 2)
    return content


def pinned(folder: Path, filename: str, content: bytes) -> SourceArchive:
    (folder / filename).write_bytes(content)
    return SourceArchive("name", "1.0-2", filename, hashlib.sha256(content).hexdigest())


def test_debian_packages_are_read(tmp_path: Path) -> None:
    files = {"./usr/share/b": b"two", "./usr/share/a": b"one"}
    package = deb_of(
        {
            "debian-binary": b"2.0\n",
            "control.tar.gz": b"odd",
            "data.tar.xz": tar_of(files, "w:xz"),
        }
    )
    source = pinned(tmp_path, "name_1.0-2_all.deb", package)
    assert source.download == "apt-get download name=1.0-2"
    members = source.members(tmp_path / source.filename)
    assert list(members.items()) == [("usr/share/a", b"one"), ("usr/share/b", b"two")]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"debian-binary": b"2.0\n"}, "holds no data.tar"),
        ({"data.tar.zst": b"\x28\xb5\x2f\xfd" + b"0" * 600}, r"data\.tar\.zst .* cannot be read"),
    ],
)
def test_strange_debian_packages_are_refused(
    tmp_path: Path, members: dict[str, bytes], problem: str
) -> None:
    source = pinned(tmp_path, "name.deb", deb_of(members))
    with pytest.raises(DataError, match=problem):
        source.members(tmp_path / source.filename)


def test_npm_packages_are_read(tmp_path: Path) -> None:
    source = pinned(tmp_path, "name-1.0.tgz", tar_of({"package/data.txt": b"text"}, "w:gz"))
    assert source.download == "npm pack name@1.0-2"
    assert source.members(tmp_path / source.filename) == {"package/data.txt": b"text"}


def test_archives_that_lie_together_are_read_together(tmp_path: Path) -> None:
    first = pinned(tmp_path, "one.tgz", tar_of({"package/a": b"1"}, "w:gz"))
    second = SourceArchive("two", "3", "two-3.tgz", first.sha256)
    both = SourceArchives(first, second)
    assert both.download == "npm pack name@1.0-2 && npm pack two@3"
    assert both.filename == "one.tgz"
    with pytest.raises(DataError, match=r"two-3\.tgz.*try `npm pack two@3`"):
        both.members(tmp_path / "one.tgz")
    (tmp_path / "two-3.tgz").write_bytes((tmp_path / "one.tgz").read_bytes())
    assert both.members(tmp_path / "one.tgz") == {"name/package/a": b"1", "two/package/a": b"1"}
