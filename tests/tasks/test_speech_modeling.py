"""Frames of speech: joined clips, windows, references, what the model sees."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Attention, Pattern, Scale, Slots
from runners.training import train
from tasks.data.speech import load_speech
from tasks.speech_modeling.frames import Frames, last_frames, regressed, ridge
from tasks.speech_modeling.model import FrameStream, continued
from tasks.speech_modeling.task import AHEAD, SpeechModeling
from tasks.tts.spectrogram import TELEPHONE

CS = Pattern.CAUSAL_SELF


@pytest.fixture(scope="module")
def tiny() -> SpeechModeling:
    return SpeechModeling(CS, Scale.TINY)


def model_of(task: SpeechModeling, attention: type[Attention] = SoftmaxAttention) -> FrameStream:
    torch.manual_seed(0)
    model = task.build(Slots(CS, attention, SoftmaxAttention)).eval()
    assert isinstance(model, FrameStream)
    return model


def test_frames_are_the_clips_end_to_end_standardised_on_training(tiny: SpeechModeling) -> None:
    frames = tiny.frames
    for split, clips in load_speech().splits().items():
        counts = [TELEPHONE.frames(len(clip.samples)) for clip in clips]
        assert len(frames.splits[split]) == sum(counts)
        second = frames.splits[split][counts[0] : counts[0] + counts[1]]
        amplitudes = TELEPHONE.amplitudes(clips[1].samples.numpy())
        expected = torch.from_numpy(TELEPHONE.log_mel(amplitudes))
        torch.testing.assert_close(frames.log_mel(second), expected, atol=1e-4, rtol=0)
    train = frames.splits["train"]
    torch.testing.assert_close(train.mean(0), torch.zeros(TELEPHONE.bands), atol=1e-3, rtol=0)
    torch.testing.assert_close(train.std(0), torch.ones(TELEPHONE.bands), atol=1e-3, rtol=0)


def test_windows_are_disjoint_and_as_many_as_there_are(tiny: SpeechModeling) -> None:
    window, held = tiny.window, tiny.frames.splits["test"]
    starts = tiny.frames.even_starts("test", window, 10**6)
    assert len(starts) == len(held) // window
    assert starts.diff().eq(window).all()
    found = tiny.frames.windows("test", starts[1:3], window)
    assert torch.equal(found.flatten(0, 1), held[window : 3 * window])


def test_the_frame_predicted_shares_no_sample_with_the_latest() -> None:
    assert AHEAD * TELEPHONE.hop >= TELEPHONE.window
    assert (AHEAD - 1) * TELEPHONE.hop < TELEPHONE.window


@pytest.mark.parametrize("attention", [SoftmaxAttention, NoAttention])
def test_a_prediction_is_from_the_frames_up_to_its_place(
    tiny: SpeechModeling, attention: type[Attention]
) -> None:
    model = model_of(tiny, attention)
    frames = tiny.training_batch(torch.Generator().manual_seed(0))["frames"][:2]
    changed = frames.clone()
    changed[:, 20] += 1
    with torch.no_grad():
        whole, moved = model(frames), model(changed)
        torch.testing.assert_close(model(frames[:, :20]), whole[:, :20])
    assert torch.equal(whole[:, :20], moved[:, :20])
    assert not torch.equal(whole[:, 20], moved[:, 20])
    assert torch.equal(whole[:, 21:], moved[:, 21:]) is (attention is NoAttention)


class Repeats(nn.Module):
    """The latest frame."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames


def test_scores_and_references_of_predictors_that_are_known(tiny: SpeechModeling) -> None:
    found, references = tiny.evaluate(Repeats(), "test", 0), tiny.references(0)
    assert list(found) == [metric.name for metric in tiny.info.metrics]
    assert found["mse"] == pytest.approx(references["repeat"])
    batch = tiny.training_batch(torch.Generator().manual_seed(0))
    frames = batch["frames"]
    expected = (frames[:, AHEAD:] - frames[:, :-AHEAD]).square().mean()
    torch.testing.assert_close(tiny.loss(Repeats(), batch), expected)
    assert references["ridge"] < references["repeat"] < references["mean"]
    assert references["mean"] == pytest.approx(1, abs=0.2)


def test_ridge_finds_a_linear_rule_in_the_last_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(40, 12, 3, generator=generator)
    inputs = last_frames(windows, 2)
    assert torch.equal(inputs[:, 1:, 3:], windows[:, :-1])
    assert not inputs[:, 0, 3:].any()
    rule = torch.randn(6, 2, generator=generator).double()
    wanted = inputs.double() @ rule + 0.7
    weights = ridge(inputs.flatten(0, 1), wanted.flatten(0, 1), 0.0)
    torch.testing.assert_close(regressed(inputs, weights), wanted)


def test_the_model_continues_from_its_own_predictions(tiny: SpeechModeling) -> None:
    """Of a model that repeats, every second frame is that of the last two known ones."""
    frames = torch.arange(10.0)[None, :, None].expand(1, 10, 2)
    made = continued(Repeats(), frames, 4, AHEAD)  # type: ignore[arg-type]  # as it is called
    assert made[0, :, 0].tolist() == [0, 1, 2, 3, 2, 3, 2, 3, 2, 3]


def test_a_run_learns_and_shows_what_it_makes(tiny: SpeechModeling) -> None:
    torch.manual_seed(0)
    slots = Slots(CS, SoftmaxAttention, SoftmaxAttention)
    model = tiny.build(slots)
    train(tiny, model, slots.candidates, 0, lambda **event: None)
    with torch.no_grad():
        scores = tiny.evaluate(model.eval(), "test", 0)
        made = tiny.artifacts(model, 0)
    assert scores["mse"] < 0.9 * tiny.references(0)["repeat"]
    assert [artifact.name for artifact in made] == ["spectrograms", "predicted"]
    assert isinstance(tiny.frames, Frames)
