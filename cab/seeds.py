"""Named streams of random numbers, derived from one seed.

A run has one seed, and many things draw: the weights, the order of the data, dropout, the problems
of an evaluation. Sums such as ``seed + 1_000_000`` let the draws of one meet those of another, or
of the next seed. Here every stream has a name, and its seed is a hash of the name and of what tells
it from its neighbours (a split, a step, a number), so that streams have nothing to do with each
other, whatever the seeds of the runs are.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Stream = Literal[
    "weights",  # shared weights of a backbone, and those of its slots
    "data",  # batches of training
    "dropout",  # whatever a forward pass of training draws
    "evaluation",  # problems that are evaluated, and what evaluating them draws
    "statistics",  # numbers that a task derives from draws, which are neither trained on nor tested
    "witness",  # what a witness computes
    "analysis",  # what an analysis disturbs
    "guard",  # batches on which a model is held to the contract
    "efficiency",  # inputs and weights that are timed
]
"""The names. A task of one's own may use them all: what a task draws is told from what others draw
by the run, and two draws of its own by the ``parts``."""


def derive(seed: int, stream: Stream, *parts: int | str) -> int:
    """The seed of a stream: 63 bits, well mixed, the same on every machine.

    Args:
        seed: of the run.
        stream: which of its streams.
        parts: what tells this use of the stream from others: a split, a step, a condition.
    """
    text = "\x1f".join((stream, str(seed), *(f"{type(x).__name__}:{x}" for x in parts)))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, stream: Stream, *parts: int | str) -> torch.Generator:
    """A generator on the CPU at the start of a stream; see `derive`."""
    return torch.Generator().manual_seed(derive(seed, stream, *parts))


def evaluation(seed: int, split: str, *parts: int | str) -> torch.Generator:
    """What draws the problems of an evaluation.

    Args:
        seed: that `cab.Task.evaluate` is given; it is the same for all runs where the task's record
            does not say otherwise (`cab.TaskInfo.fresh_evaluation`).
        split: validation or test.
        parts: see `derive`.
    """
    return generator(seed, "evaluation", split, *parts)
