"""The tasks of text to speech: data, batches, scores, samples."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Batch, Pattern, Scale, Slots
from tasks.data.embedded import SPLITS
from tasks.data.speech import load_speech
from tasks.tts.samples import alignment
from tasks.tts.speech_task import SpeechTask, by_length
from tasks.tts.synthesiser import Synthesiser
from tasks.tts.task import TextToSpeech
from tasks.tts.text import END
from tasks.tts.transformer_task import TransformerTextToSpeech

PAIRS = [
    (task, pattern)
    for task in (TextToSpeech, TransformerTextToSpeech)
    for pattern in task.info.patterns
]


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"{pair[0].info.id}-{pair[1]}")
def task(request: pytest.FixtureRequest) -> SpeechTask:
    made: SpeechTask = request.param[0](request.param[1], Scale.TINY)
    return made


def build(
    task: SpeechTask, candidate: type[Attention] = SoftmaxAttention, seed: int = 0
) -> Synthesiser:
    torch.manual_seed(seed)
    model = task.build(Slots(task.pattern, candidate, SoftmaxAttention, seed=seed))
    assert isinstance(model, Synthesiser)
    return model


def draw(task: SpeechTask, seed: int = 0) -> Batch:
    return task.training_batch(torch.Generator().manual_seed(seed))


# Data


def test_frames_are_standardised_on_the_training_split(task: SpeechTask) -> None:
    frames = torch.cat([one.frames for one in task.corpus.utterances["train"]])
    torch.testing.assert_close(frames.mean(0), torch.zeros(40), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(0), torch.ones(40), atol=1e-3, rtol=0)
    one = task.corpus.utterances["test"][0]
    spectrogram = task.corpus.spectrogram
    clip = load_speech().test[0]
    expected = spectrogram.log_mel(spectrogram.amplitudes(clip.samples.numpy()))
    assert task.corpus.log_mel(one.frames) == pytest.approx(expected, abs=1e-4)


def test_splits_share_no_text_and_no_sound(task: SpeechTask) -> None:
    members = task.corpus.utterances
    for keys in (
        [{one.id for one in members[split]} for split in SPLITS],
        [{one.text.strip("?") for one in members[split]} for split in SPLITS],
        [{one.frames.numpy().tobytes() for one in members[split]} for split in SPLITS],
    ):
        assert not any(one & other for one, other in itertools.combinations(keys, 2))


def test_durations_count_every_frame(task: SpeechTask) -> None:
    """A frame is counted for the character in which its centre lies."""
    hop = task.corpus.spectrogram.hop
    for one, clip in zip(task.corpus.utterances["test"], load_speech().test, strict=True):
        assert len(one.durations) == len(one.tokens) == len(one.text) + 1
        assert int(one.tokens[-1]) == END
        assert int(one.durations.sum()) == len(one.frames) == 1 + len(clip.samples) // hop
        assert not one.durations[-1]
        ends = clip.durations.cumsum(0)
        starts = ends - clip.durations
        expected = [
            sum(a <= min(t * hop, len(clip.samples) - 1) < b for t in range(len(one.frames)))
            for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
        assert one.durations[:-1].tolist() == expected


def test_pitch_and_energy_are_those_of_a_voice() -> None:
    """At base: Allison Smith speaks at about 200 Hz, and vowels are louder than stops."""
    task = TextToSpeech(Pattern.NONCAUSAL_SELF, Scale.BASE)
    train = task.corpus.utterances["train"]
    for name in ("pitch", "energy"):
        values = torch.cat([getattr(one, name)[one.durations > 0] for one in train])
        assert values.mean().abs() < 1e-3
        assert (values.std() - 1).abs() < 1e-2
    by_letter = {
        group: float(
            np.mean(
                [
                    float(energy)
                    for one in train
                    for letter, energy, length in zip(
                        one.text, one.energy, one.durations, strict=False
                    )
                    if letter in group and length > 0
                ]
            )
        )
        for group in ("aeio", "kpt", " ,.")
    }
    assert by_letter["aeio"] > by_letter["kpt"] > by_letter[" ,."]


def test_batches_are_of_distinct_utterances_of_like_length(task: SpeechTask) -> None:
    group = task.size.group
    spread, overall = [], np.std([len(one.frames) for one in task.corpus.utterances["train"]])
    for seed in range(20):
        batch = draw(task, seed)
        assert batch["frames"].shape[0] == task.recipe.batch_size
        assert batch["frames"].shape[1] == int(batch["groups"].max()) * group
        assert len({row.numpy().tobytes() for row in batch["frames"]}) == task.recipe.batch_size
        assert (batch["groups"] * group >= batch["frame_mask"].sum(1)).all()
        spread.append(float(batch["frame_mask"].sum(1).float().std()))
    assert np.mean(spread) < 0.6 * overall


# Training and scores


def trained(task: SpeechTask, candidate: type[Attention], seed: int, steps: int) -> Synthesiser:
    model = build(task, candidate, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimiser.zero_grad()
        task.loss(model, task.training_batch(generator)).backward()
        optimiser.step()
    return model.eval()


def test_training_lowers_the_scores_and_repeats_to_the_last_bit(task: SpeechTask) -> None:
    with torch.no_grad():
        before = task.evaluate(build(task).eval(), "validation", 0)
    scores = []
    for seed in (0, 0, 1):
        model = trained(task, SoftmaxAttention, seed, 12)
        with torch.no_grad():
            scores.append(task.evaluate(model, "validation", 0))
    assert scores[0] == scores[1] != scores[2]
    assert scores[0]["l1"] < before["l1"]
    assert list(before) == [metric.name for metric in task.info.metrics]
    assert task.info.metrics[0].name == "l1"


def test_scores_of_the_recordings_themselves_are_zero(
    task: SpeechTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(task).eval()
    monkeypatch.setattr(model, "guided", lambda batch: batch["frames"])
    monkeypatch.setattr(
        model,
        "free",
        lambda batch: [
            row[mask] for row, mask in zip(batch["frames"], batch["frame_mask"], strict=True)
        ],
    )
    scores = task.evaluate(model, "test", 0)
    assert scores["l1"] == 0.0
    assert scores["mcd"] == scores["msd"] == 0.0


def test_l1_is_the_mean_over_frames_of_the_split(task: SpeechTask) -> None:
    """Utterances one by one, so without any padding."""
    model = build(task).eval()
    errors = []
    with torch.no_grad():
        score = task.evaluate(model, "validation", 0)["l1"]
        for one in task.corpus.utterances["validation"]:
            batch = task.corpus.batch([one], task.size.group)
            made = model.guided(batch)[0, : len(one.frames)]
            errors.append((made - one.frames).abs().mean(1))
    assert score == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)


def test_shared_weights_do_not_depend_on_the_candidate(task: SpeechTask) -> None:
    one, other = (
        build(task, candidate).state_dict() for candidate in (SoftmaxAttention, NoAttention)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_length_is_the_longest_that_a_slot_sees(task: SpeechTask) -> None:
    """The longest text and the longest sound, through the backbone."""
    slots = Slots(task.pattern, SoftmaxAttention, SoftmaxAttention)
    model = task.build(slots).eval()
    assert isinstance(model, Synthesiser)
    sizes: list[tuple[int, int]] = []
    for module in slots.candidates:
        module.register_forward_hook(
            lambda _, inputs, __: sizes.append((inputs[0].shape[2], inputs[1].shape[2]))
        )
    everything = [one for split in SPLITS for one in task.corpus.utterances[split]]
    longest = [max(everything, key=lambda one: len(one.tokens)), by_length(everything)[-1]]
    with torch.no_grad():
        model.guided(task.corpus.batch(longest, task.size.group))
    assert tuple(max(side) for side in zip(*sizes, strict=True)) == task.length()


@pytest.mark.parametrize(("kind", "pattern"), PAIRS)
@pytest.mark.parametrize("scale", [Scale.SMALL, Scale.BASE])
def test_other_scales_take_a_step(kind: type[SpeechTask], pattern: Pattern, scale: Scale) -> None:
    task = kind(pattern, scale)
    model = build(task)
    few = task.corpus.batch(by_length(task.corpus.utterances["train"])[:4], task.size.group)
    loss = task.loss(model, few)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert loss.isfinite()


@pytest.mark.parametrize(("kind", "pattern"), PAIRS)
def test_paper_scale_builds_on_the_embedded_data(kind: type[SpeechTask], pattern: Pattern) -> None:
    task = kind(pattern, Scale.PAPER)
    with torch.device("meta"):
        model = task.build(Slots(pattern, SoftmaxAttention, SoftmaxAttention))
    assert isinstance(model, nn.Module)
    assert (task.recipe.steps, task.recipe.accumulate) == (200_000, 8)


# Samples


def test_samples_are_a_picture_a_sound_and_an_alignment(task: SpeechTask) -> None:
    model = build(task).eval()
    with torch.no_grad():
        found = task.artifacts(model, 0)
    assert [one.file for one in found] == ["spectrogram.png", "speech.wav", "alignment.png"]
    members = by_length(task.corpus.utterances["test"])
    shown = members[3 * len(members) // 4]
    assert all(shown.id in one.caption for one in found)
    picture = Image.open(io.BytesIO(found[0].content))
    assert picture.height == 3 * (2 * 40 + 2)
    assert picture.width >= 3 * len(shown.frames)


def test_alignment_is_zero_where_the_text_is_not_seen() -> None:
    """Without cross attention no output depends on any character."""
    task = TextToSpeech(Pattern.CAUSAL_CROSS, Scale.TINY)
    one = task.corpus.utterances["test"][0]
    batch = dict(task.corpus.batch([one], task.size.group))
    columns = int(batch["groups"][0])
    for candidate, seen in ((NoAttention, False), (SoftmaxAttention, True)):
        found = alignment(build(task, candidate).eval(), batch)
        assert found.shape == (min(columns, 40), len(one.text))
        assert bool(found.any()) == seen
        assert found.max() == (1.0 if seen else 0.0)


def test_alignment_of_a_pointwise_model_is_its_durations() -> None:
    """Without attention a frame of FastSpeech 2 depends on its own character alone."""
    task = TextToSpeech(Pattern.NONCAUSAL_SELF, Scale.TINY)
    one = task.corpus.utterances["test"][0]
    batch = dict(task.corpus.batch([one], task.size.group))
    found = alignment(build(task, NoAttention).eval(), batch)
    owners = torch.repeat_interleave(torch.arange(len(one.tokens)), batch["durations"][0])
    chosen = np.unique(np.linspace(0, len(owners) - 1, 40).round().astype(int))
    assert (found > 0).sum(1).tolist() == [1] * len(chosen)
    assert found.argmax(1).tolist() == owners[chosen].tolist()
