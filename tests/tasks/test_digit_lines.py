"""Lines of digits: what stands on the canvas, what the strips show, readers without training."""

from __future__ import annotations

import math

import pytest
import torch

from attentions.none import NoAttention
from attentions.softmax import SoftmaxAttention
from cab import Pattern, Scale, Slots, seeds
from runners.training import train
from tasks.data.images import digits
from tasks.digit_lines import lines
from tasks.digit_lines.readers import as_text, blind_nll, nearest_neighbour
from tasks.digit_lines.task import SETTINGS, DigitLines
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import END, PADDING, START

CC = Pattern.CAUSAL_CROSS


@pytest.fixture(scope="module")
def drawn() -> lines.Lines:
    return lines.draw(*digits("test"), 200, 3, 6, seeds.generator(0, "data"))


def test_every_pixel_is_of_a_digit_and_every_digit_stands_where_it_is_said(drawn) -> None:
    images, labels = digits("test")
    known = {image.numpy().tobytes(): label for image, label in zip(images, labels, strict=True)}
    alone = lines.draw(images, labels, 50, 1, 1, seeds.generator(1, "data"))
    for canvas, digit, (corner,) in zip(alone.canvas, alone.digits, alone.corners, strict=True):
        top, left = corner.tolist()
        box = canvas[top : top + 28, left : left + 28].clone()
        assert known[box.numpy().tobytes()] == digit[0]
        assert canvas.sum() == box.sum()
    assert drawn.canvas.dtype == torch.uint8


def test_lengths_gaps_and_heights(drawn) -> None:
    counts = (drawn.digits >= 0).sum(1)
    assert set(counts.tolist()) == {3, 4, 5, 6}
    top, left = drawn.corners.unbind(-1)
    assert (top.min(), top.max()) == (0, 8)
    gaps = left.diff(dim=1) - 28
    assert (gaps.min(), gaps.max()) == (-8, 4)
    assert (left[:, 0].min(), left[:, 0].max()) == (0, 12)
    # The widest line fits: no digit is cut.
    for setting in SETTINGS.values():
        assert 12 + 28 + (setting.most - 1) * 32 <= lines.canvas_width(setting.most)


def test_the_length_of_a_source_says_nothing_of_the_number_of_digits(drawn) -> None:
    task = DigitLines(CC, Scale.SMALL)
    batches = [task.training_batch(seeds.generator(seed, "data")) for seed in range(2)]
    assert {batch["source"].shape for batch in batches} == {(32, 34, lines.FEATURES)}
    assert len(set((batches[0]["target"] == END).int().argmax(1).tolist())) == 4
    # Behind the last digit the canvas is blank.
    source = lines.strips(drawn.canvas)
    right = drawn.corners[..., 1].where(drawn.digits >= 0, -1).amax(1) + 28
    centres = lines.strip_places(6) * lines.PITCH + 20
    blank = centres - lines.STRIP / 2 >= right[:, None]
    assert blank.any()
    assert source[blank].sum() == 0


def test_strips_show_the_canvas_around_their_centres() -> None:
    canvas = torch.zeros(1, lines.HEIGHT, lines.canvas_width(6), dtype=torch.uint8)
    first = 100
    canvas[:, :, first : first + 2] = 255
    seen = lines.strips(canvas)[0].sum(1) > 0
    centres = lines.strip_places(6) * lines.PITCH + 20
    expected = (centres - (first + 1)).abs() < lines.STRIP / 2
    assert torch.equal(seen, expected)
    assert seen.sum() == lines.STRIP // lines.STRIDE
    assert lines.strips(canvas).max() == pytest.approx(2.0)


def test_places_count_digits_of_an_average_line(drawn) -> None:
    """A digit's centre is at its number, on average, and further off the further right it is."""
    centre = drawn.corners[..., 1] + 14.0
    place = (centre - 20) / lines.PITCH
    off = place - torch.arange(6)
    assert off.mean(0).abs().max() < 0.15
    assert off[:, 5].std() > 2 * off[:, 0].std()


def test_targets(drawn) -> None:
    target = lines.as_batch(drawn)["target"]
    for row, digit in zip(target.tolist(), drawn.digits.tolist(), strict=True):
        labels = [d for d in digit if d >= 0]
        expected = [START, *(FIRST_TOKEN + d for d in labels), END]
        assert row == [*expected, *[PADDING] * (8 - len(expected))]


def test_readers(drawn) -> None:
    # All lengths and digits are as likely: the mean code length is the entropy.
    expected = (4.5 * math.log(10) + math.log(4)) / 5.5
    assert blind_nll(drawn, 3, 6) == pytest.approx(expected, abs=0.02)
    images, labels = digits("test")
    spread = lines.Lines(
        torch.cat([images[:3].permute(1, 0, 2).flatten(1)[None]]),
        labels[:3][None],
        torch.tensor([[[0, 0], [0, 28], [0, 56]]]),
    )
    assert nearest_neighbour(spread, images, labels) == [as_text(labels[:3])]


def test_attention_is_needed_from_the_first_scale_on() -> None:
    task = DigitLines(CC, Scale.TINY)
    found = {}
    for cls in (SoftmaxAttention, NoAttention):
        torch.manual_seed(0)
        slots = Slots(CC, cls, SoftmaxAttention, {}, 0)
        model = task.build(slots)
        trained = train(task, model, slots.candidates, 0, lambda **event: None)
        found[cls] = trained.validation["nll"]
    blind = blind_nll(task.evaluated_lines("validation", 0), 2, 4)
    assert found[NoAttention] > blind - 0.02
    assert found[SoftmaxAttention] < blind - 0.2
