"""Speech inpainting: gaps, closed-form predictors, what a query knows, one tiny cell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Batch, Scale
from tasks.data.speech import load_speech
from tasks.problems.hidden import hide
from tasks.speech_inpainting.predictors import (
    covariances,
    kriging,
    linear_interpolation,
    visible_mean,
)
from tasks.speech_inpainting.task import SpeechInpainting
from tasks.speech_inpainting.windows import SPECTROGRAM, draw_gaps
from tests.tasks.hidden_cases import (
    NC,
    generator,
    model_of,
    same,
    shuffled_known,
    trained_score,
    without,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # At these sizes a second thread costs more than it gives, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny() -> SpeechInpainting:
    return SpeechInpainting(NC, Scale.TINY)


def gapped(values: Tensor, *hidden: int) -> Batch:
    """One band (T,) without these frames."""
    mask = torch.zeros(1, len(values), dtype=torch.bool)
    mask[0, list(hidden)] = True
    return hide(values[None, :, None], mask)


def test_gaps_are_blocks_at_any_offset() -> None:
    gaps = draw_gaps(500, 32, 16, 4, generator())
    assert (gaps.sum(1) == 16).all()
    around = torch.cat([gaps, gaps], dim=1)  # a block that is cut goes on at the other end
    edges = (around[:, 1:] & ~around[:, :-1]).nonzero()
    for row, start in edges.tolist():
        run = around[row, start + 1 : start + 5]
        assert run.all() or start + 5 > 64
    begins = {int(start + 1) % 4 for _, start in edges.tolist()}
    assert begins == {0, 1, 2, 3}
    assert (gaps.double().mean(0) - 0.5).abs().max() < 0.1
    with pytest.raises(ValueError, match="blocks of 4"):
        draw_gaps(1, 30, 16, 4, generator())


def test_linear_interpolation_by_hand() -> None:
    batch = gapped(torch.tensor([9.0, 2.0, 0.0, 0.0, 8.0, 0.0]), 0, 2, 3, 5)
    expected = torch.tensor([2.0, 4.0, 6.0, 8.0], dtype=torch.float64)
    torch.testing.assert_close(linear_interpolation(batch)[0, :, 0], expected)
    torch.testing.assert_close(
        visible_mean(batch)[0, :, 0], torch.full((4,), 5.0, dtype=torch.float64)
    )


def test_kriging_is_the_conditional_mean() -> None:
    lag = torch.arange(6.0, dtype=torch.float64)
    decay = 0.8**lag
    batch = gapped(torch.tensor([1.0, 0.0, 0.0, -2.0, 0.0, 0.5]), 1, 2, 4)
    matrix = 0.8 ** (lag[:, None] - lag).abs()
    known, asked = [0, 3, 5], [1, 2, 4]
    expected = matrix[asked][:, known] @ torch.linalg.solve(
        matrix[known][:, known], torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(kriging(batch, decay[None], 0.0)[0, :, 0], expected)


def test_covariances_by_hand() -> None:
    window = torch.tensor([[[1.0], [2.0], [-1.0]]])
    expected = torch.tensor([[6.0, 0.0, -1.0]], dtype=torch.float64) / 3
    torch.testing.assert_close(covariances(window), expected)


def test_windows_are_frames_of_one_clip(tiny: SpeechInpainting) -> None:
    clips = load_speech().test
    spectra = [SPECTROGRAM.log_mel(SPECTROGRAM.amplitudes(c.samples.numpy())) for c in clips]
    long = [clip for clip in spectra if len(clip) >= tiny.setting.frames]
    counts = [(len(clip) - tiny.setting.frames) // tiny.setting.stride + 1 for clip in long]
    starts = tiny.frames.starts["test"]
    assert len(starts) == sum(counts)
    windows = tiny.frames.windows("test", starts)
    last = long[-1]
    begin = (counts[-1] - 1) * tiny.setting.stride
    np.testing.assert_allclose(
        tiny.frames.log_mel(windows[-1]), last[begin : begin + tiny.setting.frames], atol=1e-4
    )


def test_training_frames_are_standardised(tiny: SpeechInpainting) -> None:
    clips = load_speech().train
    spectra = [SPECTROGRAM.log_mel(SPECTROGRAM.amplitudes(c.samples.numpy())) for c in clips]
    everything = np.concatenate(spectra)
    np.testing.assert_allclose(tiny.frames.mean.numpy(), everything.mean(0), atol=1e-3)
    np.testing.assert_allclose(tiny.frames.deviation.numpy(), everything.std(0), rtol=1e-3)


def test_scores_of_a_shifted_answer(tiny: SpeechInpainting) -> None:
    asked = tiny.questions("test", 0)
    shift = 1 / tiny.frames.deviation  # one unit of natural logarithm in each band
    found = tiny._scores(lambda batch: batch["target"] + shift, asked)
    assert set(found) == {metric.name for metric in tiny.info.metrics}
    assert found["lsd"] == pytest.approx(20 / np.log(10), rel=1e-4)
    assert found["mse"] == pytest.approx(shift.square().mean().item(), rel=1e-4)


def test_references_are_ordered(tiny: SpeechInpainting) -> None:
    found = tiny.references(0)
    assert set(found) == {reference.name for reference in tiny.info.references}
    assert found["kriging"] < found["linear"] < found["visible-mean"]
    assert found["kriging-lsd"] < found["linear-lsd"]


def test_what_is_hidden_does_not_reach_the_answer(tiny: SpeechInpainting) -> None:
    """Windows that differ in hidden frames alone are asked and answered the same."""
    windows = tiny.frames.windows("train", tiny.frames.starts["train"][:4])
    batch = tiny._hide(windows, generator())
    hidden = torch.zeros(windows.shape[:2], dtype=torch.bool)
    hidden.scatter_(1, batch["asked_places"], True)
    other = tiny._hide(torch.where(hidden[..., None], 3 - windows, windows), generator())
    assert same(without(batch, "target"), without(other, "target"))
    assert not torch.equal(batch["target"], other["target"])
    model = model_of(tiny)
    with torch.no_grad():
        assert torch.equal(model(batch), model(other))


def test_the_order_of_the_known_does_not_matter(tiny: SpeechInpainting) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny)
    with torch.no_grad():
        shuffled = shuffled_known(batch, "known", "known_places")
        torch.testing.assert_close(model(batch), model(shuffled), atol=1e-5, rtol=1e-5)


def test_without_attention_a_query_knows_its_place_only(tiny: SpeechInpainting) -> None:
    batch = tiny.training_batch(generator())
    model = model_of(tiny, NoAttention)
    with torch.no_grad():
        assert torch.equal(model(batch), model({**batch, "known": batch["known"].flip(0)}))


def test_gaps_are_fresh_in_training_and_fixed_in_tests(tiny: SpeechInpainting) -> None:
    draws = generator(3)
    first, second = tiny.training_batch(draws), tiny.training_batch(draws)
    assert not torch.equal(first["asked_places"], second["asked_places"])
    assert same(first, tiny.training_batch(generator(3)))
    one, two = tiny.questions("test", 0), tiny.questions("test", 0)
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


def test_tiny_trains_and_needs_attention(tiny: SpeechInpainting) -> None:
    assert trained_score(tiny, SoftmaxAttention) < 0.85 * trained_score(tiny, NoAttention)


def test_base_takes_a_step() -> None:
    base = SpeechInpainting(NC, Scale.BASE)
    batch = {name: x[:2] for name, x in base.training_batch(generator()).items()}
    assert batch["target"].shape[1:] == (48, 40)
    loss = base.loss(model_of(base), batch)
    loss.backward()
    assert loss.isfinite()


def test_hashes_tell_scales_apart(tiny: SpeechInpainting) -> None:
    assert tiny.data_hash != SpeechInpainting(NC, Scale.SMALL).data_hash
