"""LJSpeech in its published layout: read, split, aligned, and refused where it is broken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots
from cab.errors import DataError, UsageError
from tasks.tts import align
from tasks.tts.lj_speech import read_folder, split_of
from tasks.tts.task import TextToSpeech

RATE = 22_050

TEXTS = {
    "LJ001-0001": ("Printing, in 1455", "Printing, in fourteen fifty-five"),
    "LJ002-0007": ("the jail", "the jail"),
    "LJ003-0002": ('"No," he said', '"No," he said'),
    "LJ004-0001": ("Café|", "Café"),
    "LJ010-0123": ("Dr. Who", "Doctor Who"),
    "LJ050-0278": ("in the end.", "in the end."),
}


def write_wav(folder: Path, name: str, samples: int, rate: int = RATE, channels: int = 1) -> None:
    """A hum and a hiss in turn, so that an aligner finds something."""
    random = np.random.default_rng(samples)
    times = np.arange(samples) / rate
    hum = np.sin(2 * np.pi * 150 * times) * (np.sin(2 * np.pi * 3 * times) > 0)
    sound = 0.3 * hum + 0.05 * random.normal(size=samples)
    (folder / "wavs").mkdir(exist_ok=True)
    soundfile.write(
        folder / "wavs" / f"{name}.wav",
        np.stack([sound] * channels, axis=1),
        rate,
        subtype="PCM_16",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [f"{name}|{raw.rstrip('|')}|{text}" for name, (raw, text) in TEXTS.items()]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for number, name in enumerate(TEXTS):
        write_wav(tmp_path, name, 15_000 + 1500 * number)
    return tmp_path


def test_folder_is_read_and_split_as_fairseq_does(folder: Path) -> None:
    clips = read_folder(folder, durations=False)
    assert {split: [clip.id for clip in members] for split, members in clips.items()} == {
        "train": ["LJ004-0001", "LJ010-0123", "LJ050-0278"],
        "validation": ["LJ003-0002"],
        "test": ["LJ001-0001", "LJ002-0007"],
    }
    first = clips["test"][0]
    assert first.text == "printing, in fourteen fifty-five"
    assert len(first.samples) == 15_000
    assert clips["train"][0].text == "cafe"
    assert clips["validation"][0].text == '"no," he said'
    assert TextToSpeech.data_problems(folder) == []


def test_split_of_an_id() -> None:
    assert [split_of(f"LJ{book:03}-0001") for book in (1, 2, 3, 4, 50)] == [
        "test",
        "test",
        "validation",
        "train",
        "train",
    ]


def test_limits_take_the_first_clips(folder: Path) -> None:
    limits = {"train": 2, "validation": 1, "test": 1}
    clips = read_folder(folder, durations=False, limits=limits)
    assert {split: len(members) for split, members in clips.items()} == limits
    assert clips["train"][1].id == "LJ010-0123"


@pytest.mark.parametrize("pattern", [Pattern.CAUSAL_CROSS, Pattern.CAUSAL_SELF])
def test_task_on_the_folder(folder: Path, pattern: Pattern) -> None:
    task = TextToSpeech(pattern, Scale.TINY, folder)
    one = task.corpus.utterances["test"][0]
    assert one.frames.shape == (1 + 15_000 // 256, 80)
    torch.manual_seed(0)
    model = task.build(Slots(pattern, SoftmaxAttention, SoftmaxAttention))
    loss = task.loss(model, task.training_batch(torch.Generator().manual_seed(0)))
    loss.backward()
    with torch.no_grad():
        scores = task.evaluate(model.eval(), "test", 0)
        samples = task.artifacts(model, 0)
    assert all(np.isfinite(value) for value in scores.values())
    assert len(samples) == 3
    assert task.dataset == folder.name


def test_hash_is_that_of_the_content(folder: Path) -> None:
    def digest() -> str:
        return TextToSpeech(Pattern.CAUSAL_CROSS, Scale.TINY, folder).data_hash

    before = digest()
    assert digest() == before
    write_wav(folder, "LJ050-0278", 22_501)
    assert digest() != before


# Durations


def test_fastspeech_needs_durations_and_says_how_to_get_them(folder: Path) -> None:
    with pytest.raises(DataError, match=r"durations\.csv is missing.*python -m tasks\.tts\.align"):
        TextToSpeech(Pattern.NONCAUSAL_SELF, Scale.TINY, folder)


def test_aligner_writes_durations_that_the_task_reads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["align", str(folder)])
    assert align.main() == 0
    assert capsys.readouterr().out.strip() == str(folder / "durations.csv")
    assert not list(folder.glob("*.part"))
    clips = read_folder(folder, durations=True)
    for members in clips.values():
        for clip in members:
            assert len(clip.durations) == len(clip.text)
            assert int(clip.durations.sum()) == len(clip.samples)
            letters = torch.tensor([character.isalpha() for character in clip.text])
            # Two frames of 110 samples are the least that a letter takes.
            assert (clip.durations[letters] >= 220).all()
    content = (folder / "durations.csv").read_bytes()
    align.align(folder)
    assert (folder / "durations.csv").read_bytes() == content
    task = TextToSpeech(Pattern.NONCAUSAL_SELF, Scale.BASE, folder)
    model = task.build(Slots(Pattern.NONCAUSAL_SELF, SoftmaxAttention, SoftmaxAttention))
    assert task.loss(model, task.training_batch(torch.Generator().manual_seed(0))).isfinite()
    assert TextToSpeech.data_problems(folder) == []


def test_a_clip_too_short_for_its_text_cannot_be_aligned(folder: Path) -> None:
    write_wav(folder, "LJ001-0001", 3000)
    with pytest.raises(UsageError, match=r"LJ001-0001 cannot be aligned: .* frames cannot hold"):
        align.align(folder)
    assert not (folder / "durations.csv").exists()


def test_aligner_is_told_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["align"])
    assert align.main() == 2
    assert "usage: python -m tasks.tts.align FOLDER" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["align", str(tmp_path)])
    assert align.main() == 2
    assert "metadata.csv is missing" in capsys.readouterr().err


def even(folder: Path) -> dict[str, str]:
    """Lines of durations.csv by id: every character equally long, the last the rest."""
    lines = {}
    for split in read_folder(folder, durations=False).values():
        for clip in split:
            own = [len(clip.samples) // len(clip.text)] * len(clip.text)
            own[-1] += len(clip.samples) - sum(own)
            lines[clip.id] = f"{clip.id}|{' '.join(map(str, own))}"
    return lines


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda lines: lines.pop("LJ002-0007"), "has no line for LJ002-0007"),
        (
            lambda lines: lines.update({"LJ002-0007": "LJ002-0007|1 2 3"}),
            "LJ002-0007 has 3 durations of 6 samples for 8 characters and 16500 samples",
        ),
        (
            lambda lines: lines.update({"LJ002-0007": "LJ002-0007|1 two"}),
            "is not ID|samples of each character",
        ),
        (
            lambda lines: lines.update({"LJ002-0007": "LJ002-0007 1 2"}),
            "is not ID|samples of each character",
        ),
        (
            lambda lines: lines.update({"LJ002-0007": "LJ002-0007|-5 16505"}),
            "is not ID|samples of each character",
        ),
    ],
)
def test_broken_durations_are_refused(
    folder: Path, damage: Callable[[dict[str, str]], object], problem: str
) -> None:
    lines = even(folder)
    path = folder / "durations.csv"
    path.write_text("\n".join(lines.values()) + "\n")
    assert TextToSpeech.data_problems(folder) == []
    damage(lines)
    path.write_text("\n".join(lines.values()) + "\n")
    with pytest.raises(DataError, match=problem.replace("|", r"\|")):
        read_folder(folder, durations=True)
    assert any(problem in line for line in TextToSpeech.data_problems(folder))


# Broken folders


def rewrite(folder: Path, change: Callable[[list[str]], object]) -> None:
    path = folder / "metadata.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / "metadata.csv").unlink(), "metadata.csv is missing"),
        (lambda f: (f / "metadata.csv").write_text("\n"), "metadata.csv is empty"),
        (
            lambda f: (f / "metadata.csv").write_bytes("LJ001-0001|é|é\n".encode("latin-1")),
            "metadata.csv is not UTF-8",
        ),
        (
            lambda f: rewrite(f, lambda lines: lines.append("LJ050-0300|no third field")),
            "line 7 of .*metadata.csv has 2 fields, not 3",
        ),
        (
            lambda f: rewrite(f, lambda lines: lines.append("LJ050-0300|5|5")),
            "line 7 of .*metadata.csv has no words",
        ),
        (
            lambda f: rewrite(f, lambda lines: lines.append(lines[0])),
            "line 7 of .*metadata.csv names LJ001-0001 again",
        ),
        (
            lambda f: rewrite(f, lambda lines: lines.pop(2)),
            "metadata.csv has no validation clip",
        ),
        (lambda f: (f / "wavs" / "LJ004-0001.wav").unlink(), "LJ004-0001.wav is missing"),
        (
            lambda f: (f / "wavs" / "LJ004-0001.wav").write_bytes(b"RIFF"),
            "LJ004-0001.wav cannot be read",
        ),
        (
            lambda f: write_wav(f, "LJ004-0001", 9000, rate=16_000),
            "LJ004-0001.wav has 16000 Hz and 1 channels",
        ),
        (
            lambda f: write_wav(f, "LJ004-0001", 9000, channels=2),
            "LJ004-0001.wav has 22050 Hz and 2 channels",
        ),
        (
            lambda f: write_wav(f, "LJ004-0001", 900),
            "LJ004-0001.wav has 900 samples, a frame needs 1024",
        ),
    ],
)
def test_broken_folders_are_refused(
    folder: Path, damage: Callable[[Path], object], problem: str
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=problem):
        TextToSpeech(Pattern.CAUSAL_CROSS, Scale.TINY, folder)
    problems = TextToSpeech.data_problems(folder)
    assert len(problems) == 1


def test_every_problem_is_listed(folder: Path) -> None:
    (folder / "wavs" / "LJ004-0001.wav").unlink()
    write_wav(folder, "LJ010-0123", 9000, rate=8000)
    rewrite(folder, lambda lines: lines.pop(2))
    problems = TextToSpeech.data_problems(folder)
    assert len(problems) == 3
    assert all("\n" not in line for line in problems)
