"""The effective length: how many tokens of its context a model has at hand."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_DRAWS, _CONFIDENCE = 1000, 0.95


def effective_length(accuracy: Mapping[int, float], guess: float) -> float:
    """The length of a context times the share of its needles that is retrieved, guesses taken off;
    the largest over the tested lengths.

    It is n for a model that retrieves everything from n tokens, and w at any length beyond w for
    one that retrieves from the last w tokens and guesses elsewhere. Every problem of a length
    counts alike: there is no threshold which a little more or less would cross.

    Args:
        accuracy: by length; needles are spread evenly over it.
        guess: accuracy without retrieval.
    """
    return max(
        length * max(0.0, (share - guess) / (1 - guess)) for length, share in accuracy.items()
    )


def effective_length_interval(
    right: Mapping[int, Tensor], guess: float, generator: torch.Generator
) -> tuple[float, float]:
    """Bootstrap interval (95 %, percentile) of the effective length over the tested streams.

    It tells what another draw of as many streams might have given, for this trained model.

    Args:
        right: by length, (streams, questions) of 0 and 1; streams are drawn anew as a whole.
        guess: as in `effective_length`.
        generator: of the draws.
    """
    lengths = []
    for length, answers in sorted(right.items()):
        per_stream = answers.double().mean(1).cpu()
        drawn = torch.randint(len(per_stream), (_DRAWS, len(per_stream)), generator=generator)
        share = (per_stream[drawn].mean(1) - guess) / (1 - guess)
        lengths.append(length * share.clamp_min(0))
    found = torch.stack(lengths).amax(0).sort().values
    tail = round(_DRAWS * (1 - _CONFIDENCE) / 2)
    return found[tail].item(), found[-1 - tail].item()
