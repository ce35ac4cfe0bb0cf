"""What rounding may do to a mechanism: no bar can be set for all of them without asking.

A result whose inputs are moved by one rounding moves by what its conditioning makes of it; an
evaluation in other order is a result for inputs that are off by a few roundings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cab.checks.case import Case
from cab.checks.compare import excess
from cab.checks.inputs import Inputs

_MARGIN = 16.0
"""Roundings inside a mechanism against one at its inputs"""


def nudged(inputs: Inputs, rounding: float, generator: torch.Generator) -> Inputs:
    """Every floating point number of queries, keys, values and layer inputs moved by up to one
    rounding: each by itself, and all tokens of a channel alike, as a mean over them would be.
    """

    def nudge(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.ndim < 3:
            return x
        alike = (*x.shape[:1], 1, *x.shape[2:])
        step = torch.rand(x.shape, generator=generator, dtype=torch.float64) * 2 - 1
        step += torch.rand(alike, generator=generator, dtype=torch.float64) * 2 - 1
        return (x.double() * (1 + step * rounding)).to(x.dtype)

    return inputs.changed(nudge, nudge, of_context=False)


def nudge_parameters(module: nn.Module, rounding: float, generator: torch.Generator) -> None:
    """The same for the parameters of a module."""
    with torch.no_grad():
        for p in module.parameters():
            step = torch.rand(p.shape, generator=generator, dtype=torch.float64) * 2 - 1
            p.mul_((1 + step * rounding).to(p.dtype))


def rounding_noise(case: Case, inputs: Inputs, out: Tensor) -> float:
    """How far the output may move where inputs move by a rounding, with a margin."""
    moved = case.call(nudged(inputs, case.condition.rounding, case.generator(3)))
    return _MARGIN * excess(out, moved)[0]
