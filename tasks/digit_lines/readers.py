"""Readers without training that the scores are read against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tasks.data.images import DIGIT_SIDE
from tasks.digit_lines.lines import Lines


def blind_nll(lines: Lines, least: int, most: int) -> float:
    """Nats per token of who knows how lines are drawn, but does not see them.

    Every digit costs ln 10; from ``least`` digits on, whether the line ends costs together
    ln(most - least + 1), since all lengths are as likely.
    """
    lengths = (lines.digits >= 0).sum(1)
    nats = lengths.double() * math.log(10) + math.log(most - least + 1)
    return nats.sum().item() / int((lengths + 1).sum())


def nearest_neighbour(lines: Lines, images: Tensor, labels: Tensor) -> list[str]:
    """What who is told where each digit stands reads there: the label of the nearest (M, 28, 28)
    image, by squared distance of pixels. Parts of neighbours may stand in the picture.
    """
    flat = images.flatten(1).float()
    read = []
    for canvas, digits, corners in zip(lines.canvas, lines.digits, lines.corners, strict=True):
        boxes = torch.stack(
            [
                canvas[top : top + DIGIT_SIDE, left : left + DIGIT_SIDE].flatten()
                for top, left in corners[digits >= 0].tolist()
            ]
        )
        nearest = torch.cdist(boxes.float(), flat).argmin(1)
        read.append(as_text(labels[nearest]))
    return read


def as_text(digits: Tensor) -> str:
    """The digits of a line as a string; -1 stands for none."""
    return "".join(str(digit) for digit in digits.tolist() if digit >= 0)
