"""Every dtype against float64: finite, of the right shape and type, and as near as rounding allows.

How near follows from the mechanism itself: what the float64 output does when inputs move by one
rounding of the shorter dtype, with a margin, and some roundings of the output. A choice among keys
(a quantile, the largest) may fall the other way for one draw of inputs; what differs for each of
several draws is wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cab.checks.case import Case
from cab.checks.causality import is_random
from cab.checks.conditioning import nudge_parameters, nudged
from cab.checks.conditions import Condition
from cab.checks.gradients import gradients_of, trained_parameters
from cab.checks.inputs import Inputs

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

_FIXED = (
    Condition(F32, 2, 2, 8, 6, 21, 34, training=True),
    Condition(F32, 2, 4, 32, 32, 100, 190),
    Condition(F32, 2, 2, 16, 16, 40, 65, scale=8.0),
    Condition(F32, 2, 2, 16, 16, 40, 65, scale=1.0, offset=5.0),
    Condition(F32, 1, 1, 8, 8, 150, 1030, grad="no_grad"),
    Condition(F32, 2, 2, 64, 64, 30, 48, scale=1e-2),
    Condition(F32, 2, 2, 16, 16, 60, 70, autocast=True, training=True),
    Condition(BF16, 2, 2, 8, 6, 1, 1),
    Condition(BF16, 2, 4, 64, 64, 64, 64, layer_index=1, layers=2),
    Condition(BF16, 2, 2, 16, 8, 150, 300, mask="mixed"),
    Condition(F16, 2, 2, 8, 6, 2, 2),
    Condition(F16, 2, 2, 32, 32, 33, 100, mask="holes"),
    Condition(F16, 2, 2, 8, 8, 3, 3, scale=3.0),
)
_DRAWS = 3
_MARGIN = 16.0
"""Roundings inside a mechanism against one at its inputs"""
_SHORT = 1e-4
_SHORT_MARGIN = 4.0
"""Of bfloat16 and float16, in which few results are computed and all are rounded"""
_NUDGES = 2


_LEAST_SCALE = 0.3
"""Below it gradients in float16 underflow, as they do where losses are not scaled"""


def check_precision(case: Case) -> None:
    """Outputs and gradients in every dtype, and under autocast, are those of float64."""
    for at in case.through(_FIXED, "precision", longest=700):
        inputs = at.inputs()
        _finite(at, inputs)
        if at.condition.training and is_random(at, inputs, at.call(inputs)):
            at = at.with_(training=False)  # noise is drawn in the dtype
        complaint = ""
        for draw in range(_DRAWS):
            complaint = _off(at.with_(seed=at.seed + draw), at.at_seed(at.seed + draw).inputs())
            if not complaint:
                break
        if complaint:
            raise at.fail(complaint)


def check_zeros(case: Case) -> None:
    """Tokens that are all zero, or all alike, give finite outputs and gradients."""
    for dtype in (F32, F16):
        for offset in (0.0, 1.0):
            at = case.small().with_(dtype=dtype, scale=0.0, offset=offset, training=True)
            _finite(at, at.inputs())


def _finite(case: Case, inputs: Inputs) -> None:
    c = case.condition
    tracked, leaves = inputs.leaves()
    module = case.module()
    out = case.call(tracked, module)
    want = (*inputs.q.shape[:3], inputs.v.shape[-1])
    if tuple(out.shape) != want:
        raise case.fail(f"output has shape {tuple(out.shape)}, not {want}")
    if out.dtype is not c.dtype and not c.autocast:
        raise case.fail(f"output is {out.dtype}")
    if not out.isfinite().all():
        raise case.fail("output is not finite")
    if not out.requires_grad:
        return
    every = leaves | trained_parameters(module)
    for name, gradient in gradients_of(out, torch.ones_like(out), every).items():
        if not gradient.isfinite().all():
            raise case.fail(f"the gradient of {name} is not finite")


def _off(case: Case, inputs: Inputs) -> str:
    """What is further from float64 than rounding explains; empty: nothing."""
    c = case.condition
    exact = case.with_(dtype=F64, autocast=False)
    wide = inputs.to(F64)
    shape = (*inputs.q.shape[:3], inputs.v.shape[-1])
    weight = torch.randn(shape, generator=case.generator(5), dtype=F64)
    if inputs.given.query_mask is not None:
        weight = weight * inputs.given.query_mask[:, None, :, None]
    want = _results(exact, wide, weight)
    got = _results(case, inputs, weight)
    moved = []
    for i in range(_NUDGES):
        generator = case.generator(30 + i)
        moved.append(_results(exact, nudged(wide, c.rounding, generator), weight, generator))
    largest = max((w.norm().item() for n, w in want.items() if n != "output"), default=0.0)
    spread = wide.v.square().mean().sqrt().item()
    for name, exactly in want.items():
        if name not in got:
            continue
        error = (got[name].double() - exactly).norm().item()
        noise = max((m[name] - exactly).norm().item() for m in moved)
        size = exactly.norm().item() if name == "output" else max(exactly.norm().item(), largest)
        margin = _MARGIN if c.rounding < _SHORT else _SHORT_MARGIN
        # What is added up has the size of the values, though the sum may be next to nothing.
        summed = max(size, spread * exactly.numel() ** 0.5) if name == "output" else size
        bar = max(margin * (noise + c.rounding * summed), _half_of_the_digits(c) * size)
        if not error <= bar + torch.finfo(c.dtype).tiny:
            what = "output" if name == "output" else f"gradient of {name}"
            return f"the {what} is off by {error / max(size, 1e-30):.1e} of its size in this dtype"
    return ""


def _half_of_the_digits(condition: Condition) -> float:
    """Of float32, which is what a long computation keeps; of shorter ones that is too few."""
    return condition.rounding**0.5 if condition.rounding < _SHORT else 0.0


def _results(
    case: Case, inputs: Inputs, weight: Tensor, nudge: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Output and gradients of the valid rows; of nudged parameters, by the rounding of float32."""
    module = case.module()
    if nudge is not None:
        nudge_parameters(module, torch.finfo(F32).eps, nudge)
    tracked, leaves = inputs.leaves()
    out = case.call(tracked, module)
    valid = torch.ones(1, dtype=torch.bool)
    if inputs.given.query_mask is not None:
        valid = inputs.given.query_mask[:, None, :, None]
    result = {"output": torch.where(valid, out.detach().double(), 0.0)}
    c = case.condition
    if c.grad != "grad" or (c.dtype is F16 and c.scale < _LEAST_SCALE):
        return result
    every = leaves | trained_parameters(module)
    return result | gradients_of(out, weight, every)
