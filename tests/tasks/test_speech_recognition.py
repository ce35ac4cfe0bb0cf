"""Speech recognition: words in recordings, phrases of them, what is heard, readers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots, seeds
from tasks.sequence_transduction import FIRST_TOKEN, target_tokens
from tasks.speech_recognition import phrases
from tasks.speech_recognition.phrases import ALPHABET, Limits, Recordings, Word
from tasks.speech_recognition.readers import counted_nll, nearest_words
from tasks.speech_recognition.task import SETTINGS, SpeechRecognition
from tasks.summarization.vocabulary import END, PADDING, START
from tasks.tts.corpus import Utterance

CC = Pattern.CAUSAL_CROSS
LIMITS = Limits(words=(1, 3), characters=20, frames=114)


@pytest.fixture(scope="module")
def task() -> SpeechRecognition:
    return SpeechRecognition(CC, Scale.TINY)


def utterance(text: str, durations: list[int], value: float = 0.0) -> Utterance:
    """A clip whose frame t is (t, value)."""
    count = sum(durations)
    frames = torch.stack([torch.arange(float(count)), torch.full((count,), value)], dim=1)
    none = torch.zeros(0)
    return Utterance(text, text, none, frames, torch.tensor([*durations, 0]), none, none)


def recordings(*clips: Utterance) -> Recordings:
    return Recordings(clips, torch.tensor([-9.0, -9.0]))


def test_words_stand_where_the_alignment_has_them() -> None:
    found = recordings(
        utterance("i'm, so", [2, 0, 2, 3, 1, 4, 5]), utterance("do it", [3, 3, 2, 1, 1])
    )
    assert found.clips == [
        [Word("i'm", 0, 4), Word("so", 8, 17)],
        [Word("do", 17, 23), Word("it", 25, 27)],
    ]
    assert found.frames[17].tolist() == [0.0, 0.0]
    assert found.frames[-1].tolist() == [-9.0, -9.0]
    # "it" has so few frames that its alignment is not believed.
    assert [[w.text for w in s] for s in found.stretches(1)] == [["i'm"], ["so"], ["do"]]
    assert [[w.text for w in s] for s in found.stretches(2)] == [["i'm", "so"]]


def test_no_text_of_one_split_is_in_another() -> None:
    by_split = {
        split: {tuple(word.text for word in clip) for clip in found.clips}
        for split, found in phrases.load("asterisk-prompts").items()
    }
    assert sum(map(len, by_split.values())) == len(set().union(*by_split.values()))
    # So that letters have to be heard.
    words = {split: {w for text in texts for w in text} for split, texts in by_split.items()}
    assert len(words["test"] - words["train"]) > 0.2 * len(words["test"])


def test_a_phrase_sounds_as_its_clips(task) -> None:
    """Word by word, one after the other, then silence."""
    found = task.recordings["train"]
    drawn = found.draw(100, LIMITS, seeds.generator(0, "data"))
    for row, frames, words in zip(drawn.rows, found.sound(drawn.rows), drawn.words, strict=True):
        spoken = int((row >= 0).sum())
        assert (row[spoken:] == -1).all()
        assert (frames[spoken:] == found.frames[-1]).all()
        assert torch.equal(frames[:spoken], found.frames[row[:spoken].long()])
        heard = set(row[:spoken].long().tolist())
        assert all(heard >= set(range(word.first, word.end)) for word in words)
        # Beside the words only pauses within a clip.
        assert spoken >= sum(word.end - word.first for word in words)


def test_phrases_keep_to_the_limits(task) -> None:
    drawn = task.recordings["train"].draw(300, LIMITS, seeds.generator(0, "data"), tempo=0.15)
    assert {len(words) for words in drawn.words} == {1, 2, 3}
    assert max(map(len, drawn.texts)) <= 20
    assert drawn.rows.shape == (300, 114)
    assert all(set(text) <= set(ALPHABET) for text in drawn.texts)
    joined = [words for words in drawn.words if any(a.end > b.first for a, b in pairwise(words))]
    assert joined, "stretches of several clips"


def test_tempo_changes_how_long_a_phrase_is_and_not_how_it_sounds() -> None:
    found = recordings(utterance("ab", [30, 30], 7.0))
    limits = Limits(words=(1, 1), characters=2, frames=80)
    drawn = found.draw(50, limits, seeds.generator(0, "data"), tempo=0.2)
    lengths = (drawn.rows >= 0).sum(1)
    assert 49 <= lengths.min() < 55 < 65 < lengths.max() <= 74
    frames = found.sound(drawn.rows)
    said = drawn.rows >= 0
    torch.testing.assert_close(frames[..., 0][said], drawn.rows[said].float())
    assert (frames[..., 1][said] == 7).all()
    assert (frames[~said] == -9).all()
    assert drawn.rows.max() <= 59


def test_source_tokens_are_the_frames_around_their_place() -> None:
    frames = torch.arange(12.0)[None, :, None].expand(2, -1, 3)
    tokens = phrases.stacked(frames)
    wide, step = phrases.STACKED, phrases.STRIDE
    assert tokens.shape == (2, 12 // step, 3 * wide)
    before = (wide - step) // 2
    for number in range(12 // step):
        first = number * step - before
        expected = torch.arange(first, first + wide).clamp(0, 11)
        assert tokens[0, number].view(3, wide)[0].tolist() == expected.tolist()


def test_targets(task) -> None:
    rows = phrases.targets(["a b", "it's"], 5)
    assert rows[0].tolist() == [START, FIRST_TOKEN + 2, FIRST_TOKEN, FIRST_TOKEN + 3, END, 0, 0]
    assert PADDING == 0
    said = [phrases.decode(row) for row in target_tokens({"target": rows})]
    assert said == ["a b", "it's"]
    drawn = task.evaluated_phrases("test", 0)
    target = task.problems("test", 0)["target"]
    assert [phrases.decode(row) for row in target_tokens({"target": target})] == drawn.texts


def test_a_source_has_one_length_and_nothing_of_the_text(task) -> None:
    """What follows the speech is the same for all, and what is evaluated is not disturbed."""
    problems, drawn = task.problems("validation", 0), task.evaluated_phrases("validation", 0)
    assert problems["source"].shape == (64, 63 // phrases.STRIDE, phrases.FEATURES)
    spoken = (drawn.rows >= 0).sum(1)
    ends = phrases.STRIDE * (torch.arange(problems["source"].shape[1]) + 1)
    silent = ends - phrases.STACKED >= spoken[:, None]
    silence = phrases.stacked(task.recordings["train"].frames[-1].expand(1, 8, -1))[0, 1]
    assert silent.any()
    assert (problems["source"][silent] == silence).all()


def test_places_count_characters_at_the_training_rate(task) -> None:
    drawn = task.recordings["train"].draw(500, LIMITS, seeds.generator(0, "data"))
    characters = sum(map(len, drawn.texts))
    assert task.rate * (drawn.rows >= 0).sum() == pytest.approx(characters, rel=0.1)


def test_training_is_disturbed_and_only_so_much() -> None:
    frames = torch.full((50, 40, 30), 5.0)
    noisy = phrases.disturbed(frames, seeds.generator(0, "data"))
    hidden = noisy == 0
    assert 0.05 < hidden.double().mean() < 0.4
    assert (noisy - frames)[~hidden].std() == pytest.approx(phrases.NOISE, rel=0.05)
    assert torch.equal(noisy, phrases.disturbed(frames, seeds.generator(0, "data")))
    assert hidden.all(2).sum(1).max() <= phrases.MASKED_FRAMES
    assert hidden.all(1).sum(1).max() <= phrases.MASKED_BANDS


def test_who_knows_the_text_has_no_loss(task) -> None:
    """A decoder that is right and sure scores 0, one that says nothing ln V."""

    class Told(torch.nn.Module):
        sure = 50.0

        def forward(self, batch):
            target = batch["target"][:, 1:]
            wanted = target[target != PADDING]
            kinds = FIRST_TOKEN + len(ALPHABET)
            return self.sure * torch.nn.functional.one_hot(wanted, kinds).float(), wanted

    told, batch = Told(), task.problems("test", 0)
    assert task.loss(told, batch).item() == pytest.approx(0.0, abs=1e-6)
    told.sure = 0.0
    assert task.loss(told, batch).item() == pytest.approx(math.log(FIRST_TOKEN + len(ALPHABET)))


def test_counting_by_hand() -> None:
    training, test = phrases.targets(["ab"] * 500, 3), phrases.targets(["ab"], 3)
    assert counted_nll(training, test, 2) == pytest.approx(0.0, abs=0.05)
    assert counted_nll(training, test, 1) == pytest.approx(0.0, abs=0.05)
    # a, b and END are as frequent.
    assert counted_nll(training, test, 0) == pytest.approx(math.log(3), abs=0.05)


def test_the_nearest_word_is_the_word_itself_where_it_is_known(task) -> None:
    known = task.recordings["train"]
    drawn = known.draw(20, LIMITS, seeds.generator(0, "data"))
    assert nearest_words(known, drawn.words, known) == drawn.texts


def test_references_stand_in_the_order_that_they_should(task) -> None:
    values = task.references(0)
    assert values["trigrams"] < values["letter-frequencies"] < math.log(len(ALPHABET) + 1)
    assert 20 < values["nearest-word"] < 70


def test_the_artifact_is_a_text_of_transcriptions(task) -> None:
    torch.manual_seed(0)
    model = task.build(Slots(CC, SoftmaxAttention, SoftmaxAttention)).eval()
    with torch.no_grad():
        (artifact,) = task.artifacts(model, 0)
    assert artifact.name == "transcriptions"
    for setting in SETTINGS.values():
        assert setting.limits.frames % phrases.STRIDE == 0
