"""The optional parts: an auxiliary loss is one, and cost formulas give numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cab.attention_contract import Attention, AttentionShape
from cab.checks.case import Case
from cab.checks.small import NOT_IMPLEMENTED

_LARGEST = 1e3
"""Beyond this an auxiliary loss is no term beside a task's loss"""


def check_auxiliary_loss(case: Case) -> None:
    """Where there is one: a finite scalar of the last call, of bounded size, that can be trained:
    it has a gradient that is not zero, to a parameter or an input.
    """
    training = case.with_(training=True, grad="grad")
    module = training.module()
    for _ in range(2):
        inputs, leaves = training.inputs().leaves()
        training.call(inputs, module)
        loss = module.auxiliary_loss()
        if loss is None:
            if type(module).auxiliary_loss is Attention.auxiliary_loss:
                return
            continue
        _check_value(case, loss)
        every = [*leaves.values(), *(p for p in module.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad(loss, every, allow_unused=True, retain_graph=True)
        if not any(g is not None and g.abs().max() > 0 for g in gradients):
            raise case.fail("the auxiliary loss is a constant: no gradient, nothing to train")
        if any(g is not None and not g.isfinite().all() for g in gradients):
            raise case.fail("a gradient of the auxiliary loss is not finite")


def _check_value(case: Case, loss: Tensor) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise case.fail("the auxiliary loss is not a scalar tensor")
    value = loss.item()
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise case.fail(f"the auxiliary loss is {value:.1e}")
    if not loss.requires_grad:
        raise case.fail("the auxiliary loss is a constant: no gradient, nothing to train")


def check_cost_formulas(case: Case) -> str | None:
    """`flops` and, where it decodes, `state_size` are finite and not negative."""
    module = case.module()
    missing = []
    decodes = case.cls.decodes() and case.pattern.causal
    for length in (1, 17, 190, 1030):
        shape = AttentionShape(2, case.condition.heads, length, length, 8, case.condition.value_dim)
        for name, argument in (("flops", shape), ("state_size", length)):
            if name == "state_size" and not decodes:
                continue
            try:
                value = getattr(module, name)(argument)
            except NotImplementedError:
                if name not in missing:
                    missing.append(name)
                continue
            if not (math.isfinite(value) and value >= 0):
                raise case.fail(f"{name} gives {value} at {length} tokens")
    return f"{NOT_IMPLEMENTED}: {', '.join(missing)}" if missing else None
