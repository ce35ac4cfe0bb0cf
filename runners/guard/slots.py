"""What is asked of a call that a slot has really had: that the output hangs on nothing that it may
not hang on, and is the mechanism's.

Where positions mix in a backbone is its slots, so a leak goes through one. The call is made again
with the numbers, shapes, types, masks, mode and parameters that it had, and only that is changed
which must not matter; the output to be compared with is the one that the model went on with.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from runners.guard import changes
from runners.guard.calls import SlotCall
from runners.guard.comparison import REPEATED, RESHAPED, counted_places, deviation
from runners.guard.reference import check_reference
from runners.outcome import DivergedError, InvalidError

_ROUNDINGS = 8.0
_MOST_SENSITIVE = 0.02

_DRAWN_ROWS = 12
_TURNS = 2
"""Of a change in different places"""

_BORDER = 16
"""Blocks end at multiples of this."""


def check_call(call: SlotCall, order: random.Random, when: str) -> None:
    """Every rule that applies.

    Args:
        call: one that happened.
        order: for the places that are looked at.
        when: of which model, for the message.

    Raises:
        InvalidError: it hangs on later tokens, in eval mode on other rows, or is not what its own
            reference says; names the place and the size.
        DivergedError: an output that is not finite.
    """
    spec = call.module.spec
    mode = "train" if call.training else "eval"
    where = f"the {when} model, layer {spec.layer_index}, {call.module.pattern}, {mode} mode"
    _check_finite(call, where)
    if call.training:
        if call.module.pattern.causal:
            _check_later_in_training(call, order, where)
        return
    _check_rows(call, order, where)
    # Rows do not matter to each other, so a few of them, drawn, speak for all. They are compared
    # with what they gave among all.
    batch = call.q.shape[0]
    drawn = order.sample(range(batch), min(_DRAWN_ROWS, batch))
    part = changes.rows(call, torch.tensor(drawn))
    _hold(part, part.out, part.again(), REPEATED, f"{where}: the same call again differs", drawn)
    if call.module.pattern.causal:
        _check_later(part, order, where, drawn)
    check_reference(call, order, where)


def cuts(length: int, order: random.Random, most: int) -> list[int]:
    """Places before which nothing may change: any, next to the borders of blocks, and the ends."""
    if length < 2:
        return []
    near = [
        place
        for border in range(_BORDER, length, _BORDER)
        for place in (border - 1, border, border + 1)
        if place < length
    ]
    ends = [1, length - 1]
    found: list[int] = []
    for turn in range(most):
        kind = turn % 3
        if kind == 1 and near:
            found.append(order.choice(near))
        elif kind == 2:
            found.append(order.choice(ends))
        else:
            found.append(order.randint(1, length - 1))
    return found


def _check_finite(call: SlotCall, where: str) -> None:
    out = call.out
    fine = out.isfinite() | ~counted_places(call.context, out)[..., None]
    if not fine.all():
        values = out[~fine]
        what = "nan" if values.isnan().any() else "infinite"
        raise DivergedError(f"{where}: {values.numel()} numbers of the output are {what}")


def _check_rows(call: SlotCall, order: random.Random, where: str) -> None:
    batch = call.q.shape[0]
    if batch < 2:
        return
    half = batch - batch // 2
    index = torch.arange(batch)
    other = changes.rows(call, torch.where(index < half, index, index - half))
    stays = (index < half).to(call.q.device)[:, None, None]
    complaint = f"{where}: changing rows from {half} of {batch} on changes others"
    _hold(call, call.out, other.again(), REPEATED, complaint, counted=stays)
    row = order.randrange(batch)
    alone = changes.rows(call, torch.tensor([row]))
    complaint = f"{where}: a row of {batch} differs alone"
    _hold(alone, alone.out, alone.again(), RESHAPED, complaint, [row])


def _check_later(call: SlotCall, order: random.Random, where: str, numbers: Sequence[int]) -> None:
    """Every row has a place of its own from which its tokens change."""
    count, length = len(call.q), call.q.shape[-2]
    for _ in range(_TURNS):
        _change_later(call, cuts(length, order, count), call.out, where, numbers)
    for end in cuts(length, order, _TURNS):
        _cut(call, end, call.out, where, numbers)


def _check_later_in_training(call: SlotCall, order: random.Random, where: str) -> None:
    """All rows change from one place on, since they may be tied to each other in train mode; and
    the call is made once more for comparison, since what the module keeps may have moved on.
    """
    count, length = len(call.q), call.q.shape[-2]
    base = call.again()
    for place in cuts(length, order, _TURNS):
        _change_later(call, [place] * count, base, where)
    # What draws numbers draws others for another shape.
    if torch.equal(base, call.again(seed=1)):
        for end in cuts(length, order, 1):
            _cut(call, end, base, where)


def _change_later(
    call: SlotCall,
    places: Sequence[int],
    want: Tensor,
    where: str,
    numbers: Sequence[int] | None = None,
) -> None:
    if not places:
        return
    after = torch.tensor(places, device=call.q.device)
    before = torch.arange(call.q.shape[-2], device=call.q.device) < after[:, None]
    got = changes.with_later_changed(call, after).again()
    complaint = f"{where}: changing later tokens changes an output"
    _hold(call, want, got, REPEATED, complaint, numbers, before[:, None], places)


def _cut(
    call: SlotCall, end: int, want: Tensor, where: str, numbers: Sequence[int] | None = None
) -> None:
    short = changes.cut(call, end)
    complaint = f"{where}: cutting off tokens from {end} of {call.q.shape[-2]} on changes an output"
    _hold(short, want[..., :end, :], short.again(), RESHAPED, complaint, numbers)


def _hold(
    call: SlotCall,
    want: Tensor,
    got: Tensor,
    bars: dict[torch.dtype, float],
    complaint: str,
    numbers: Sequence[int] | None = None,
    counted: Tensor | None = None,
    after: Sequence[int] | None = None,
) -> None:
    """Complain where outputs differ.

    Args:
        call: the one that gave ``got``, or much like it.
        want: (B, H, Lq, Dv).
        got: of the same shape.
        bars: by dtype.
        complaint: how the sentence begins.
        numbers: of the rows in the batch that they are from; None: it is the batch.
        counted: (B, 1, Lq), broadcastable: the outputs that are compared; None: all.
        after: for each row, the place from which its tokens were changed.
    """
    if want.shape != got.shape:
        raise InvalidError(f"{complaint}: shapes {tuple(want.shape)} and {tuple(got.shape)}")
    valid = counted_places(call.context, want)
    found = deviation(want, got, valid if counted is None else valid & counted)
    bar = bars[call.dtype]
    if not found.size <= bar:
        bar = max(bar, _sensitivity(call))
    if not found.size <= bar:
        row, head, token = found.place
        since = "" if after is None else f", with tokens from {after[row]} on changed"
        number = row if numbers is None else numbers[row]
        raise InvalidError(
            f"{complaint}: by {found.size:.1e} of its size (at most {bar:.0e}) at row {number}, "
            f"head {head}, token {token}{since}"
        )


def _sensitivity(call: SlotCall) -> float:
    """By how much an output may move because the mechanism makes much of a rounding error.

    What later tokens change by rounding (the scale of a block, a tolerance that is reached sooner)
    is then large too. There is an end to it, or a mechanism could make its leak look like this.
    """
    there = counted_places(call.context, call.out)
    moved = deviation(call.again(), call.rounded().again(), there).size
    return min(_MOST_SENSITIVE, _ROUNDINGS * moved)
