"""Lines of handwritten digits on a canvas, and the strips that a reader sees of them.

Digits stand side by side with random gaps, down to overlaps of 8 px, and at random heights. The
canvas has one width whatever stands on it, so that its length says nothing of the number of digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cab import Batch
from tasks.data.images import DIGIT_SIDE
from tasks.sequence_transduction import FIRST_TOKEN
from tasks.summarization.vocabulary import END, PADDING, START

HEIGHT = 36
FIRST_AT_MOST = 12
"""Largest place of the left edge of a line's first digit, px"""
GAPS = (-8, 4)
"""Smallest and largest gap between two digits, px"""

STRIP, STRIDE, POOLING = 24, 6, 2
"""Width of a strip and step from one to the next, px; pixels are averaged in squares of the last"""

PITCH = DIGIT_SIDE + sum(GAPS) / 2
"""From digit to digit on average, px"""
_FIRST_CENTRE = (FIRST_AT_MOST + DIGIT_SIDE) / 2

FEATURES = (HEIGHT // POOLING) * (STRIP // POOLING)
_INK = 2.0
"""Value of full ink"""


@dataclass(frozen=True)
class Lines:
    """B lines, of at most N digits each."""

    canvas: Tensor
    """(B, H, W) uint8"""
    digits: Tensor
    """(B, N) labels, -1 behind a line's end"""
    corners: Tensor
    """(B, N, 2) row and column of each digit's upper left pixel"""


def canvas_width(most: int) -> int:
    """Pixels that the widest line of ``most`` digits needs, in whole strides."""
    widest = FIRST_AT_MOST + most * DIGIT_SIDE + (most - 1) * GAPS[1]
    return -(-widest // STRIDE) * STRIDE


def draw(
    images: Tensor, labels: Tensor, count: int, least: int, most: int, generator: torch.Generator
) -> Lines:
    """Draw ``count`` lines of ``least`` to ``most`` digits, each of them uniformly.

    Args:
        images: (M, 28, 28) uint8 digits to draw from, with replacement.
        labels: (M,) of them.
        count: lines.
        least: digits of a line.
        most: likewise.
        generator: draws everything.
    """
    length = torch.randint(least, most + 1, (count, 1), generator=generator)
    chosen = torch.randint(len(images), (count, most), generator=generator)
    rows = torch.randint(HEIGHT - DIGIT_SIDE + 1, (count, most), generator=generator)
    steps = DIGIT_SIDE + torch.randint(GAPS[0], GAPS[1] + 1, (count, most), generator=generator)
    steps[:, 0] = torch.randint(FIRST_AT_MOST + 1, (count,), generator=generator)
    corners = torch.stack([rows, steps.cumsum(1)], dim=-1)
    there = torch.arange(most) < length
    canvas = torch.zeros(count, HEIGHT, canvas_width(most), dtype=torch.uint8)
    for line, place in there.nonzero().tolist():
        top, left = corners[line, place].tolist()
        part = canvas[line, top : top + DIGIT_SIDE, left : left + DIGIT_SIDE]
        torch.maximum(part, images[chosen[line, place]], out=part)
    return Lines(canvas, torch.where(there, labels[chosen], -1), corners)


def strips(canvas: Tensor) -> Tensor:
    """(B, S, FEATURES) overlapping strips of a (B, H, W) canvas, from left to right."""
    pooled = F.avg_pool2d(canvas[:, None].float() * (_INK / 255), POOLING)[:, 0]
    wide, step = STRIP // POOLING, STRIDE // POOLING
    before = (wide - step) // 2
    padded = F.pad(pooled, (before, wide - step - before))
    return padded.unfold(2, wide, step).permute(0, 2, 1, 3).flatten(2)


def strip_places(most: int) -> Tensor:
    """(S,) centres of the strips in digits: the first digit of an average line is at 0, the
    second at 1.
    """
    wide, step = STRIP // POOLING, STRIDE // POOLING
    first = POOLING * (wide / 2 - (wide - step) // 2)
    centres = first + STRIDE * torch.arange(canvas_width(most) // STRIDE)
    return (centres - _FIRST_CENTRE) / PITCH


def as_batch(lines: Lines) -> Batch:
    """``source`` (B, S, FEATURES) strips and ``target`` (B, N + 2) from START to END."""
    count, most = lines.digits.shape
    target = torch.full((count, most + 2), PADDING)
    target[:, 0] = START
    target[:, 1:-1] = torch.where(lines.digits < 0, PADDING, FIRST_TOKEN + lines.digits)
    end = (lines.digits >= 0).sum(1, keepdim=True) + 1
    return {"source": strips(lines.canvas), "target": target.scatter(1, end, END)}
