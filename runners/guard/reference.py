"""Whether a call that happened gave what the mechanism's own float64 reference gives.

A reference may be slow and large: it is asked for as much of the call as it can do in a short
time, in steps from a small part of it. How long it takes is told by the processor's time, so a
busy machine asks no less of it. A part that is shorter than the call is put to the module too.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from time import process_time

import torch
from torch import Tensor

from cab import Attention
from runners.guard import changes
from runners.guard.calls import SlotCall, mapped
from runners.guard.comparison import RESHAPED, counted_places, deviation
from runners.outcome import InvalidError

_ROWS = 2
"""Of the batch, drawn"""

_PAIRS = (1 << 12, 1 << 15, 1 << 18, 1 << 19)
"""Pairs of a query and a key, over rows and heads, that are tried in turn. A reference may keep D
numbers of each in float64, so there is an end to it."""

_PATIENCE = 0.2
"""Seconds of the processor that the next step may be expected to take"""

_CONDITION = 8.0
"""An output may be off by as many times what the exact one is off with inputs that are rounded in
the last digit of the call's type."""


def check_reference(call: SlotCall, order: random.Random, where: str) -> None:
    """Hold a call in eval mode to the reference, where there is one.

    Raises:
        InvalidError: it gave something else; names the place and the size.
    """
    module = call.module
    if type(module).reference is Attention.reference:
        return
    batch = call.q.shape[0]
    chosen = torch.tensor(sorted(order.sample(range(batch), min(_ROWS, batch))))
    drawn = changes.rows(call, chosen)
    exact = _exact(module)
    part, want = _affordable(exact, drawn)
    if part.q.shape[2] < call.q.shape[2] or part.k.shape[2] < call.k.shape[2]:
        part = replace(part, out=part.again())
    error = _relative(want, part.out, part)
    bar = RESHAPED[part.dtype]
    if error <= bar:
        return
    # Where the mechanism itself is sensitive, a float output cannot be nearer than its inputs.
    bar = max(bar, _CONDITION * _relative(want, _reference(exact, part.rounded()), part))
    if not error <= bar:
        row, head, token = deviation(want, part.out, counted_places(part.context, want)).place
        raise InvalidError(
            f"{where}: the output differs from the mechanism's own reference by {error:.1e} of its "
            f"size (at most {bar:.1e}), most at row {int(chosen[row])}, head {head}, token {token}"
        )


def _affordable(exact: Attention, call: SlotCall) -> tuple[SlotCall, Tensor]:
    """The largest part of a call that the reference can do, and what it gives for it."""
    best: tuple[SlotCall, Tensor] | None = None
    pairs, pace = 0, 0.0
    for most in _PAIRS:
        part = _part(call, most)
        wanted = _pairs(part)
        if best is not None and (wanted <= pairs or wanted * pace > _PATIENCE):
            break
        began = process_time()
        want = _reference(exact, part)
        pairs, pace = wanted, (process_time() - began) / wanted
        best = part, want
    assert best is not None
    return best


def _part(call: SlotCall, most: int) -> SlotCall:
    """At most so many pairs of a call: fewer rows, then fewer tokens."""
    if _pairs(call) > most:
        call = changes.rows(call, torch.tensor([0]))
    queries, keys = call.q.shape[2], call.k.shape[2]
    room = max(1, most // call.q.shape[1])
    if not call.module.pattern.cross:
        before = keys - queries
        while queries > 1 and queries * (queries + before) > room:
            queries -= max(1, queries // 8)
        keys = queries + before
    else:
        while queries * keys > room and max(queries, keys) > 1:
            if queries >= keys:
                queries -= max(1, queries // 8)
            else:
                keys -= max(1, keys // 8)
    if (queries, keys) == (call.q.shape[2], call.k.shape[2]):
        return call
    return changes.shortened(call, queries, keys)


def _pairs(call: SlotCall) -> int:
    rows, heads, queries = call.q.shape[:3]
    return rows * heads * queries * call.k.shape[2]


def _exact(module: Attention) -> Attention:
    """A copy in float64; what it keeps of a graph is left behind."""
    memo = {
        id(value): value.detach().clone()
        for value in vars(module).values()
        if isinstance(value, Tensor)
    }
    return copy.deepcopy(module, memo).double().eval()


@torch.no_grad()
def _reference(exact: Attention, call: SlotCall) -> Tensor:
    context = None if call.context is None else mapped(call.context, _wide)
    with torch.autocast(call.q.device.type, enabled=False):
        out: Tensor = exact.reference(call.q.double(), call.k.double(), call.v.double(), context)
    return out


def _wide(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def _relative(want: Tensor, got: Tensor, call: SlotCall) -> float:
    """Norm of the error over that of the output, at queries that are no padding."""
    counted = counted_places(call.context, want)[..., None]
    error = torch.where(counted, got.double() - want.double(), 0.0).norm()
    size = torch.where(counted, want.double(), 0.0).norm()
    return (error / size).item() if size else error.item()
