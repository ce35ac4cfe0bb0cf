"""Gradients of queries, keys, values, layer inputs and parameters, in train and eval mode.

They are the derivative of the output (by central differences in float64, a direction for each of
them), and where there is a reference, what autograd makes of that. A mechanism whose gradient is
another by design (straight-through estimators) says so in `Attention.surrogate_gradient`, and its
reference defines it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from unittest import mock

import torch
from torch import Tensor

from cab.attention_contract import Attention
from cab.checks.case import Case
from cab.checks.conditions import Condition, at_most
from cab.checks.inputs import Inputs
from cab.checks.small import NOT_IMPLEMENTED

F64 = torch.float64

_FIXED = (
    Condition(F64, 2, 2, 8, 6, 21, 34),
    Condition(F64, 2, 2, 8, 6, 21, 34, training=True),
    Condition(F64, 3, 2, 4, 4, 40, 70, training=True, mask="mixed", layer_index=1, layers=2),
    Condition(F64, 1, 3, 16, 8, 130, 190, training=True, max_length=1024),
    Condition(F64, 2, 1, 64, 32, 20, 30, training=True, scale=0.5, strided=True),
    Condition(F64, 2, 2, 8, 8, 1, 2, training=True),
    Condition(F64, 1, 1, 4, 4, 300, 400, training=True),
)
_STEPS = (1e-5, 1e-5, 1e-6)
"""Of central differences, relative to the scale of the inputs, one after the other while they are
off: a choice among keys jumps, and where every pair of tokens has a kink, some lie within a step. A
wrong gradient is wrong in every direction and at every step."""
_DERIVATIVE = 1e-4
"""Bar for it, relative: curvature, and kinks that a few numbers may lie on"""
_CUBIC, _SQUARE = 1e8, 1e6
"""Bounds of one call's cost, of which there are a few dozen"""
_REFERENCE = 1e-7
"""Bar for float64 gradients of two forms of one function, relative to the largest gradient"""

Gradients = dict[str, Tensor]


def check_derivatives(case: Case) -> None:
    """Every gradient is the derivative of the output."""
    if case.cls.surrogate_gradient:
        return
    for at in case.through(_FIXED, "derivatives", longest=600):
        one = at.with_(dtype=F64, autocast=False, grad="grad")
        one = one.at(at_most(one.condition, cubic=_CUBIC, square=_SQUARE))
        complaint = ""
        for draw, step in enumerate(_STEPS):
            complaint = _derivatives(one.at_seed(one.seed + draw), step)
            if not complaint:
                break
        if complaint:
            raise one.fail(complaint)


def _derivatives(case: Case, step: float) -> str:
    """What is not the derivative of the output, by a central difference; empty: nothing."""
    inputs = case.inputs()
    module = case.module()
    tracked, leaves = inputs.leaves()
    every = leaves | trained_parameters(module)
    out = case.call(tracked, module)
    weight = torch.randn(out.shape, generator=case.generator(5), dtype=F64) * _valid(inputs)
    gradients = gradients_of(out, weight, every)
    scale = max(case.condition.scale, 1e-2)
    for name, leaf in every.items():
        unit = scale if name in leaves else max(leaf.detach().abs().max().item(), 0.1)
        direction, h = _direction(leaf, case.generator(20)), step * unit
        up, down = (_moved(case, inputs, name, direction, at) for at in (h, -h))
        slope = ((up - down) * weight).sum().item() / (2 * h)
        said = (gradients[name] * direction).sum().item()
        noise = 1e-12 * (out.detach().abs() * weight.abs()).sum().item() / h
        size = max(abs(slope), abs(said), gradients[name].norm().item())
        if not abs(slope - said) <= _DERIVATIVE * size + noise:
            off = abs(slope - said) / max(size, 1e-30)
            return f"the gradient of {name} is not the derivative of the output: off by {off:.1e}"
    return ""


def _direction(leaf: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(leaf.shape, generator=generator, dtype=F64)


def _moved(case: Case, inputs: Inputs, name: str, direction: Tensor, by: float) -> Tensor:
    module = case.module()
    moved, leaves = inputs.leaves()
    with torch.no_grad():
        target = (leaves | trained_parameters(module))[name]
        target += by * direction
    return case.with_(grad="no_grad").call(moved, module).detach()


def trained_parameters(module: Attention) -> dict[str, Tensor]:
    """By names that no input and no output has, whatever the mechanism calls them."""
    return {f"parameter {n}": p for n, p in module.named_parameters() if p.requires_grad}


def _valid(inputs: Inputs) -> Tensor:
    """(B, 1, Lq, 1) the rows that a loss is taken of."""
    mask = inputs.given.query_mask
    if mask is None:
        return torch.ones(1, 1, 1, 1, dtype=F64)
    return mask[:, None, :, None].double()


def gradients_of(out: Tensor, weight: Tensor, leaves: dict[str, Tensor]) -> Gradients:
    """Of the weighted sum of outputs; zeros where nothing depends on a leaf."""
    zeros = {name: torch.zeros_like(x) for name, x in leaves.items()}
    if not out.requires_grad:
        return zeros
    loss = (out * weight.to(out.dtype)).sum() if out.dtype is F64 else (out.double() * weight).sum()
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name: zeros[name] if g is None else g for name, g in zip(leaves, found, strict=True)}


_PLAIN_SCALE = 3.0
_PATIENCE = 1.5
"""Seconds that one comparison may be expected to take"""
_LEAST = 40

_BY_REFERENCE = (
    Condition(F64, 2, 2, 8, 6, 21, 34, training=True),
    Condition(F64, 2, 2, 8, 6, 21, 34, mask="holes"),
    Condition(F64, 1, 1, 8, 8, 150, 190, mask="holes"),
    Condition(F64, 1, 2, 8, 8, 150, 300, layer_index=1, layers=2),
    Condition(F64, 3, 2, 16, 16, 2, 3, mask="mixed", max_length=512),
    Condition(F64, 2, 3, 32, 16, 40, 65, scale=3.0),
)


def check_against_reference(case: Case) -> str | None:
    """`forward` is `reference` in float64, in outputs and in every gradient, at real sizes; and
    the reference is a computation of its own.
    """
    if case.cls.reference is Attention.reference:
        return NOT_IMPLEMENTED
    _stands_alone(case.small())
    pace = _Pace()
    for at in [case.small(), *case.through(_BY_REFERENCE, "reference", longest=130)]:
        one = at.with_(dtype=F64, autocast=False, grad="grad")
        if one.condition.batch * one.condition.heads > 4:
            one = one.with_(batch=2, heads=2)
        if one.condition.scale > _PLAIN_SCALE:
            one = one.with_(scale=_PLAIN_SCALE)  # a plain form may exponentiate as it reads
        one = pace.affordable(one)
        if one.condition.training and _differs_in_training(one):
            one = one.with_(training=False)
        began = perf_counter()
        _agrees(one)
        pace.took(one, perf_counter() - began)
    return None


class _Pace:
    """A plain form may take a row at a time in Python: sizes are halved until it can be waited for.

    Time is expected to grow with the number of scores to the power of 3/2.
    """

    def __init__(self) -> None:
        self._seconds, self._scores = 0.0, 1

    def took(self, case: Case, seconds: float) -> None:
        """Take note of the longest call."""
        if seconds > self._seconds:
            self._seconds, self._scores = seconds, self._count(case)

    def affordable(self, case: Case) -> Case:
        """The case, or a smaller one."""
        while self._seconds * (self._count(case) / self._scores) ** 1.5 > _PATIENCE:
            c = case.condition
            if c.batch * c.heads > 1:
                case = case.with_(batch=1, heads=1)
            elif max(c.length_q, c.length_k) > _LEAST:
                case = case.with_(length_q=(c.length_q + 1) // 2, length_k=(c.length_k + 1) // 2)
            else:
                break
        return case

    @staticmethod
    def _count(case: Case) -> int:
        c = case.condition
        return c.batch * c.heads * c.length_q * c.length_k


def _differs_in_training(case: Case) -> bool:
    """Whether the reference speaks of evaluation: training has noise, or is another function."""
    inputs = case.inputs()
    evaluated = case.with_(training=False).call(inputs)
    return not torch.allclose(case.call(inputs), evaluated, rtol=1e-9, atol=1e-12)


def _agrees(case: Case) -> None:
    inputs = case.inputs()
    valid = _valid(inputs)
    results = []
    for form in ("forward", "reference"):
        module = case.module()
        tracked, leaves = inputs.leaves()
        with case.mode():
            call = getattr(module, form)
            out = call(tracked.q, tracked.k, tracked.v, tracked.context)
        weight = torch.randn(out.shape, generator=case.generator(5), dtype=F64) * valid
        results.append(
            (out.detach(), gradients_of(out, weight, leaves | trained_parameters(module)))
        )
    (got, got_gradients), (want, want_gradients) = results
    difference = ((got - want) * valid).abs().max().item()
    if not difference <= 1e-9 * max(1.0, want.abs().max().item()):
        raise case.fail("forward differs from the reference", difference)
    largest = max((g.abs().max().item() for g in want_gradients.values()), default=0.0)
    for name, gradient in want_gradients.items():
        difference = (got_gradients[name] - gradient).abs().max().item()
        if not difference <= _REFERENCE * max(largest, 1e-9):
            raise case.fail(f"the gradient of {name} differs from the reference's", difference)


class _ForwardCalledError(Exception):
    """Raised in the place of `forward` while the reference runs."""


def _stands_alone(case: Case) -> None:
    """A reference that calls `forward` compares nothing."""
    module, inputs = case.module(), case.inputs()

    owners = [c for c in type(module).__mro__ if issubclass(c, Attention) and c is not Attention]
    held = {c: c.__dict__["forward"] for c in owners if "forward" in c.__dict__}

    def guarded(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(self: Attention, *args: object, **kwargs: object) -> Tensor:
            if self is module:
                raise _ForwardCalledError
            return original(self, *args, **kwargs)

        return forward

    with ExitStack() as guards:
        for c, original in held.items():
            guards.enter_context(mock.patch.object(c, "forward", guarded(original)))
        guards.enter_context(case.mode())
        try:
            module.reference(inputs.q, inputs.k, inputs.v, inputs.context)
        except _ForwardCalledError:
            raise case.fail("the reference calls forward, so it cannot disagree with it") from None
