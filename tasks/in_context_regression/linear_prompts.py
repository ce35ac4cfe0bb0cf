"""Prompts of linear regression with noise (He et al. 2025, arXiv 2503.12734).

A prompt holds L pairs of one linear map, or of k maps of the same inputs (tasks t):

    x_l ~ N(0, diag(spectrum)),   beta_t ~ N(0, I / d),
    y_lt = beta_t · x_l + sigma e,   e ~ N(0, 1)

The spectrum has mean 1, so that E (beta·x)^2 = 1. What is asked for is beta_t · x at fresh queries,
without the noise: the mean squared error to it is the excess risk of a prediction of y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """A batch of P prompts."""

    x: Tensor
    """(P, L, d)"""
    y: Tensor
    """(P, L, k) targets with noise"""
    queries: Tensor
    """(P, M, d)"""
    signal: Tensor
    """(P, M, k) targets of the queries without noise"""


def draw_prompts(
    count: int,
    length: int,
    queries: int,
    generator: torch.Generator,
    *,
    dim: int,
    noise: float,
    tasks: int = 1,
    spectrum: Sequence[float] | None = None,
) -> Prompts:
    """Draw prompts.

    Args:
        count: P. length: L. queries: M, which follow the distribution of x.
        generator: on the CPU.
        dim: d.
        noise: variance sigma^2.
        tasks: k.
        spectrum: d variances of x; None: all are 1.
    """
    beta = torch.randn(count, dim, tasks, generator=generator) * dim**-0.5
    inputs = torch.randn(count, length + queries, dim, generator=generator)
    if spectrum is not None:
        inputs = inputs * torch.tensor(spectrum).sqrt()
    signal = inputs @ beta
    y = signal[:, :length]
    y = y + noise**0.5 * torch.randn(y.shape, generator=generator)
    return Prompts(inputs[:, :length], y, inputs[:, length:], signal[:, length:])


def geometric_spectrum(dim: int, ratio: float) -> tuple[float, ...]:
    """Variances from large to small, the first ``ratio`` times the last, with mean 1."""
    raw = [ratio ** (-i / (dim - 1)) for i in range(dim)]
    return tuple(dim * value / sum(raw) for value in raw)
