"""The effective length: up to which length retrieval holds, and how surely that is known."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

THRESHOLD = 0.8
"""Accuracy that counts as holding"""

_DRAWS, _CONFIDENCE = 1000, 0.95


def effective_length(accuracy: Mapping[int, float], threshold: float = THRESHOLD) -> int:
    """The longest length up to which accuracy is at the threshold or above at *every* tested
    length; 0 where it is below at the shortest.
    """
    reached = 0
    for length in sorted(accuracy):
        if accuracy[length] < threshold:
            break
        reached = length
    return reached


def effective_length_interval(
    right: Mapping[int, Tensor], generator: torch.Generator, threshold: float = THRESHOLD
) -> tuple[int, int]:
    """Bootstrap interval (95 %, percentile) of the effective length over the tested problems.

    It tells what another draw of as many test problems might have given, for this trained model.

    Args:
        right: by length, (depths, problems) of 0 and 1; problems are drawn anew within each depth.
        generator: of the draws.
        threshold: as in `effective_length`.
    """
    lengths = sorted(right)
    holds = []
    for length in lengths:
        depths, problems = right[length].shape
        drawn = torch.randint(problems, (_DRAWS, depths, problems), generator=generator)
        answers = right[length].double().cpu().expand(_DRAWS, -1, -1).gather(2, drawn)
        holds.append(answers.mean((1, 2)) >= threshold - 1e-12)
    held = torch.stack(holds, dim=1).long().cumprod(1).sum(1).sort().values
    tail = round(_DRAWS * (1 - _CONFIDENCE) / 2)
    steps = [0, *lengths]
    return steps[int(held[tail])], steps[int(held[-1 - tail])]
