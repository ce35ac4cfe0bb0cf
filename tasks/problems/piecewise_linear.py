"""Piecewise linear regression problems.

A problem is a stream of L pairs (x, y) in R^d in segments of S pairs. For every segment s

    W_s ~ N(0, 1/d) entrywise,   c_s ~ N(0, I),
    x = sqrt(d) (c_s + 0.5 e) / |c_s + 0.5 e|,   e ~ N(0, I),   y = W_s x,

so the map changes without notice from segment to segment (non-stationary), there is no noise, and
|x|^2 = d makes exp(q·k) a function of the distance |q - k| alone. The centres c_s keep the segments
apart in key space; without them no predictor that ignores time could tell the segments apart.

The setting follows the test-time regression experiment of Zuo et al. (2025, arXiv 2510.01450),
which gives neither the distribution of the keys nor the noise; those are ours.

Expected squared errors per output dimension of trivial predictors: 1 for predicting zero, and
2 (1 - cos) for repeating the previous value, where cos is the mean cosine of two inputs of a
segment (about 0.8), with 2 on average at the start of a segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPREAD = 0.5
"""Standard deviation of the inputs around their segment's centre, before normalisation."""


@dataclass(frozen=True)
class Problem:
    """A batch of B streams of L pairs in n = L/S segments."""

    x: Tensor
    """(B, L, d) inputs of norm sqrt(d)"""
    y: Tensor
    """(B, L, d) targets"""
    maps: Tensor
    """(B, n, d, d) the segments' W"""
    centres: Tensor
    """(B, n, d)"""

    @property
    def segment_length(self) -> int:
        """Pairs per segment S."""
        return self.x.shape[1] // self.maps.shape[1]

    def by_segment(self, stream: Tensor) -> Tensor:
        """(B, L, d) as (B, n, S, d), in float64."""
        batch, count, dim = self.centres.shape
        return stream.double().view(batch, count, -1, dim)


def draw_problem(
    batch: int, length: int, segment: int, dim: int, generator: torch.Generator
) -> Problem:
    """Draw ``batch`` streams; ``length`` must be a multiple of ``segment``."""
    if length % segment:
        raise ValueError(f"length {length} is not a multiple of the segment length {segment}")
    count = length // segment
    maps = torch.randn(batch, count, dim, dim, generator=generator) * dim**-0.5
    centres = torch.randn(batch, count, dim, generator=generator)
    x = _inputs(centres[:, :, None].expand(-1, -1, segment, -1), generator)
    y = x @ maps.transpose(-1, -2)
    return Problem(x.flatten(1, 2), y.flatten(1, 2), maps, centres)


def draw_queries(
    problem: Problem, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Fresh inputs of uniformly drawn segments, in random order.

    Returns:
        inputs (B, count, d), their targets (B, count, d), their segments (B, count).
    """
    batch, segments = problem.centres.shape[:2]
    chosen = torch.randint(segments, (batch, count), generator=generator)
    row = torch.arange(batch)[:, None]
    x = _inputs(problem.centres[row, chosen], generator)
    y = torch.einsum("bqij,bqj->bqi", problem.maps[row, chosen], x)
    return x, y, chosen


def stream_batch(problem: Problem) -> dict[str, Tensor]:
    """Causal self attention over the stream: predict y_i from the pairs j < i.

    Keys and values are the pairs one position earlier than the queries, so that the ordinary causal
    mask shows query x_i exactly the pairs before it. The first target, which has none, is left out.
    """
    return {
        "queries": problem.x[:, 1:],
        "keys": problem.x[:, :-1],
        "values": problem.y[:, :-1],
        "targets": problem.y[:, 1:],
    }


def source_batch(problem: Problem, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Cross attention: the source holds all pairs, the queries are fresh inputs."""
    return {"queries": inputs, "keys": problem.x, "values": problem.y, "targets": targets}


def _inputs(centres: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(centres.shape, generator=generator)
    x = centres + SPREAD * noise
    return x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))
