"""The mechanisms of the comparison: ours, the straightforward form, and a call of either."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import cab
from benchmarks.timing import Call
from cab.patterns import Pattern

HEADS, DIM = 8, 64

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From q, k, v (B, H, L, D) to (B, H, L, D)."""

OURS, PLAIN = "ours", "plain"
_FORMS = {
    "abc": "bounded_memory",
    "cosformer": "cosformer",
    "flash": "softmax",
    "lara": "lara",
    "linear-elu": "linear_elu",
    "local": "local",
    "long-short": "long_short",
    "nystromformer": "nystromformer",
    "performer": "performer",
    "prob-sparse": "prob_sparse",
    "s4d": "s4d",
}
"""Module of the straightforward form, by id."""

QUADRATIC = ("flash",)
"""Entries whose cost is not meant to grow linearly."""


class Case(NamedTuple):
    """An entry on one of its patterns."""

    name: str
    pattern: Pattern

    def __str__(self) -> str:
        return f"{self.name} {self.pattern.abbreviation}"


CASES = [
    Case(info.id, pattern)
    for info in cab.attentions()
    if info.id in _FORMS
    for pattern in (Pattern.NONCAUSAL_SELF, Pattern.CAUSAL_SELF)
    if info.grade(pattern)
]
"""Self attention: cross attention runs the same code as the noncausal form."""


def build(case: Case) -> dict[str, Attend]:
    """Both forms with the same parameters, in eval mode: features and samples stay the same."""
    module = cab.attention(
        case.name, pattern=case.pattern, heads=HEADS, head_dim=DIM, embed_dim=HEADS * DIM
    ).eval()
    form = importlib.import_module(f"benchmarks.attentions.plain.{_FORMS[case.name]}")
    return {OURS: module, PLAIN: lambda q, k, v: form.attend(module, q, k, v)}


def prepare(attend: Attend, batch: int, length: int) -> Call:
    """Forward and backward on fresh inputs."""
    q, k, v = (torch.randn(batch, HEADS, length, DIM, requires_grad=True) for _ in range(3))
    gradient = torch.randn(batch, HEADS, length, DIM)

    def forward_backward() -> Tensor:
        out = attend(q, k, v)
        out.backward(gradient)
        return out.detach()

    return forward_backward
