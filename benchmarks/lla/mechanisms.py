"""The mechanisms of the CPU comparison: how each is called and what memory it will take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import cab
from benchmarks.lla import baselines
from benchmarks.timing import Call

HEADS, DIM = 4, 32
PHASES = ("forward", "forward_backward")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From q, k, v (H, L, D) to (H, L, D), causal."""


@dataclass(frozen=True)
class Mechanism:
    """One line of the comparison."""

    name: str
    title: str
    build: Callable[[], Attend]
    per_pair: tuple[float, float] = (0, 0)
    """Float32 numbers per query and key that are held at the peak, forward and forward_backward."""
    per_row: float = 0
    """Float32 numbers per query that are held at the peak."""

    def peak_bytes(self, length: int, phase: str) -> int:
        """Estimate, from the shapes alone, so that nothing is tried that would not fit."""
        per_pair = self.per_pair[PHASES.index(phase)]
        return int(4 * HEADS * length * (per_pair * length + self.per_row))


def _entry(**options: str) -> Callable[[], Attend]:
    def build() -> Attend:
        module = cab.attention("lla", pattern="causal-self", heads=HEADS, head_dim=DIM, **options)
        return lambda q, k, v: module(q[None], k[None], v[None])[0]

    return build


OURS = "lla"
EINSUM, DIFFERENCES = "einsum", "differences"
MECHANISMS = {
    m.name: m
    for m in (
        Mechanism(OURS, "ours", _entry()),
        Mechanism("lla-cg", "ours, solver=cg", _entry(solver="cg")),
        Mechanism(
            EINSUM, "(a) einsum + solve", lambda: baselines.covariance_einsum, (3, 4), 6 * DIM * DIM
        ),
        Mechanism(
            DIFFERENCES, "(b) differences", lambda: baselines.every_difference, (2.2 * DIM, 5 * DIM)
        ),
        Mechanism("naive", "(c) naive softmax", lambda: baselines.naive_softmax, (3.2, 3.2)),
        Mechanism("sdpa", "(d) SDPA", lambda: baselines.fused_softmax),
    )
}


def prepare(attend: Attend, length: int, phase: str) -> Call:
    """A call on fresh inputs of one length."""
    training = phase == "forward_backward"
    q, k, v = (torch.randn(HEADS, length, DIM, requires_grad=training) for _ in range(3))
    if not training:

        def forward() -> Tensor:
            with torch.no_grad():
                return attend(q, k, v)

        return forward
    gradient = torch.randn(HEADS, length, DIM)

    def forward_backward() -> Tensor:
        out = attend(q, k, v)
        out.backward(gradient)
        return out.detach()

    return forward_backward


def covariance_flops(length: int) -> float:
    """Of the multiply-adds that the covariances of all rows take: the symmetric half of k k^T, for
    the keys that a causal row sees.
    """
    pairs = HEADS * length * (length + 1) / 2
    return 2 * pairs * DIM * (DIM + 1) / 2
