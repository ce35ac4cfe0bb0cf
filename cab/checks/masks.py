"""What a mask of keys means: removed, and the others keep their positions.

A masked place may hold anything, not-a-number and infinity included; it changes neither an output
nor a gradient. Where a mechanism reads positions from its context, or has none, a call with the
keys removed and the positions of the others given says what is right. One that counts positions
itself (a window, a convolution, chunks) cannot be told of a gap, so there its own reference under
the mask is the measure; and a suffix removes alike for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from cab.attention_contract import Attention
from cab.checks.advice import empty_rows
from cab.checks.case import Case
from cab.checks.causality import is_random
from cab.checks.compare import excess, rounding_bar
from cab.checks.conditioning import rounding_noise
from cab.checks.conditions import Condition
from cab.checks.gradients import trained_parameters
from cab.checks.inputs import Inputs
from cab.checks.isolation import mixes_rows

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

_FIXED = (
    Condition(F64, 6, 2, 8, 6, 21, 34, mask="mixed"),
    Condition(F32, 6, 2, 16, 16, 70, 70, mask="mixed", training=True),
    Condition(BF16, 6, 3, 8, 8, 150, 190, mask="mixed", given="bare"),
    Condition(F16, 4, 2, 64, 64, 33, 65, mask="mixed"),
    Condition(F32, 4, 2, 32, 32, 40, 129, mask="holes", autocast=True, query_mask=True),
    Condition(F32, 2, 1, 8, 8, 150, 1030, mask="holes", given="positions"),
    Condition(F64, 4, 2, 8, 8, 3, 3, mask="mixed", query_mask=True),
)


def check_content(case: Case) -> None:
    """What is in masked keys, values and layer inputs has no effect on outputs and gradients,
    whatever it is; a row that sees no key returns zeros; masked queries change no other row.
    """
    for at in case.through(_FIXED, "content"):
        _content(at if at.condition.mask else at.masked("mixed"))


def _content(case: Case) -> None:
    inputs = case.inputs()
    mask, valid = inputs.key_mask, inputs.valid_queries()
    assert mask is not None
    out = case.call(inputs)
    rounding = rounding_bar(BF16 if case.condition.autocast else out.dtype)
    for name, filling in _FILLINGS.items():
        again = case.call(_filled(inputs, ~mask, filling, case))
        difference, size = excess(out, again, valid)
        bar = rounding * size
        if difference > bar and out.dtype in (F32, F64):
            bar += rounding_noise(case, inputs, out)
        if not difference <= bar:
            hint = "" if filling == filling and abs(filling) < 1e9 else _HINT
            raise case.fail(
                f"masked keys and values that are {name} change outputs{hint}", difference
            )
        if not again.isfinite().all():
            raise case.fail(f"a masked query's output is not finite (masked: {name})")
        empty = ~_sees(inputs, case)
        if not (again.masked_fill(~empty[:, None, :, None], 0.0) == 0).all():
            rows = again.masked_fill(~empty[:, None, :, None], 0.0)
            raise case.fail(
                f"a row that sees no key does not return zeros (masked: {name})"
                f"{empty_rows(case.pattern, rows)}"
            )
    if case.condition.grad == "grad":
        _gradients(case, _filled(inputs, ~mask, _FILLINGS["not a number"], case), valid)
    _masked_queries(case, inputs, out, rounding)


def _gradients(case: Case, inputs: Inputs, valid: Tensor) -> None:
    tracked, leaves = inputs.leaves()
    module = case.module()
    out = case.call(tracked, module)
    if not out.requires_grad:
        return
    loss = torch.where(valid, out.double(), 0.0).square().sum()
    every = leaves | trained_parameters(module)
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        loss, list(every.values()), allow_unused=True
    )
    mask = inputs.key_mask
    assert mask is not None
    for name, gradient in zip(every, gradients, strict=True):
        if gradient is None:
            continue
        if not gradient.isfinite().all():
            raise case.fail(f"what masked keys hold makes the gradient of {name} not finite")
        if name in ("k", "v") and gradient.masked_fill(mask[:, None, :, None], 0.0).any():
            raise case.fail(f"masked places of {name} have a gradient")


_HINT = " (a weight of zero does not remove them: fill k and v at masked places first)"
_FILLINGS: dict[str, float] = {
    "other numbers": 1e3,
    "not a number": float("nan"),
    "infinite": float("inf"),
}


def _filled(inputs: Inputs, where: Tensor, filling: float, case: Case) -> Inputs:
    """Masked keys, values and layer inputs of keys hold something else; in self attention masked
    queries other numbers.
    """
    generator = case.generator(5)

    def fill(x: Tensor, value: float = filling) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        other = noise * value if value == value and abs(value) < 1e9 else noise * 0 + value
        place = where[:, None, :, None] if x.ndim == 4 else where[:, :, None]
        return torch.where(place, other.to(x.dtype), x)

    out = replace(inputs, k=fill(inputs.k), v=fill(inputs.v))
    if not inputs.cross:
        out = replace(out, q=fill(inputs.q, 3.0))
    if inputs.given.key_input is None:
        return out
    layer = fill(inputs.given.key_input)
    own = inputs.given.query_input if inputs.cross else layer
    return out.with_context(key_input=layer, query_input=own)


def _sees(inputs: Inputs, case: Case) -> Tensor:
    """(B, Lq) bool, the rows that see a key."""
    mask = inputs.key_mask
    assert mask is not None
    if case.pattern.causal and not case.pattern.cross:
        return mask.cumsum(-1) > 0
    return mask.any(-1, keepdim=True).expand(-1, inputs.q.shape[-2])


def _masked_queries(case: Case, inputs: Inputs, out: Tensor, rounding: float) -> None:
    valid = inputs.valid_queries()
    if not inputs.cross or valid.all():
        return
    noise = torch.randn(inputs.q.shape, generator=case.generator(6), dtype=torch.float64) * 5
    again = case.call(replace(inputs, q=torch.where(valid, inputs.q, noise.to(inputs.q.dtype))))
    difference, size = excess(out, again, valid)
    bar = rounding * size
    if difference > bar and out.dtype in (F32, F64):
        bar += rounding_noise(case, inputs, out)
    if not difference <= bar:
        raise case.fail("masked queries change outputs of others", difference)


_HOLES = (
    Condition(F64, 6, 2, 8, 6, 21, 34, mask="mixed"),
    Condition(F64, 4, 2, 16, 16, 60, 100, mask="holes", given="bare"),
    Condition(F32, 4, 2, 8, 8, 90, 190, mask="mixed", layer_index=1, layers=2),
    Condition(F32, 3, 3, 32, 16, 64, 64, mask="prefix", training=True),
    Condition(F64, 2, 1, 8, 8, 150, 300, mask="holes", query_mask=True),
)


def check_holes(case: Case) -> None:
    """Masking keys anywhere is removing them, the others at their positions."""
    removal = _what_removal_shows(case.small())
    for at in case.through(_HOLES, "holes", longest=200):
        one = at if at.condition.mask else at.masked("holes")
        if one.condition.dtype in (F16, BF16):
            one = one.with_(dtype=F32, autocast=False)
        _holes(one, removal)


def _holes(case: Case, removal: bool) -> None:
    inputs = case.inputs()
    mask = inputs.key_mask
    assert mask is not None
    out = case.call(inputs)
    if case.condition.training and (is_random(case, inputs, out) or mixes_rows(case, inputs, out)):
        return  # what is drawn, or a row alone, is another thing
    complaints: list[tuple[float, str]] = []
    for row in range(len(mask)):
        keep = mask[row].nonzero()[:, 0]
        if not len(keep):
            continue
        stretch = len(keep) == int(keep[-1] - keep[0]) + 1
        if stretch or removal:
            complaints += _compared(case, inputs, out, row, keep)
        elif _compared(case, inputs, out, row, keep):
            # It counts positions itself: its reference says what that means.
            complaints += _by_reference(case, inputs, row)
    if complaints:
        size, complaint = max(complaints)
        raise case.fail(complaint, size)


def _compared(
    case: Case, inputs: Inputs, out: Tensor, row: int, keep: Tensor
) -> list[tuple[float, str]]:
    """The row alone with its masked keys removed against the row with the mask."""
    removed, alone = removal_of(inputs, row, keep), out[row : row + 1]
    if not inputs.cross:
        alone = alone[:, :, keep]
    else:
        valid = inputs.valid_queries()[row, 0, :, 0]
        removed = removed.changed(queries=lambda x: x[:, valid])
        alone = alone[:, :, valid]
    if alone.shape[-2] == 0:
        return []
    got = case.call(removed)
    difference, size = excess(alone, got)
    bar = rounding_bar(out.dtype, other_shape=True) * size
    if difference > bar:
        bar += rounding_noise(case, removed, got)
    if difference <= bar:
        return []
    return [(difference, "masking keys differs from removing them, the others at their positions")]


def removal_of(inputs: Inputs, row: int, keep: Tensor) -> Inputs:
    """One row of the batch without its masked keys, positions given, and without a mask."""
    index = slice(row, row + 1)
    if inputs.context is not None and inputs.given.key_positions is None:
        places = [torch.arange(x.shape[-2]) for x in (inputs.q, inputs.k)]
        inputs = inputs.with_context(query_positions=places[0], key_positions=places[1])

    def kept(x: Tensor) -> Tensor:
        return x[:, keep]

    one = inputs.rows(index).changed(None if inputs.cross else kept, kept)
    own = one.given.query_mask if inputs.cross else None
    return one.with_context(key_mask=None, query_mask=own)


def _by_reference(case: Case, inputs: Inputs, row: int) -> list[tuple[float, str]]:
    if case.cls.reference is Attention.reference or case.condition.training:
        return []
    one = inputs.rows(slice(row, row + 1)).to(F64)
    exact = case.with_(dtype=F64, autocast=False)
    module = exact.module(F64)
    with exact.mode():
        want = module.reference(one.q, one.k, one.v, one.context)
    difference, size = excess(want, exact.call(one, module), one.valid_queries())
    if difference <= rounding_bar(F64) * max(1.0, size):
        return []
    return [(difference, "under a mask with a hole it differs from its reference")]


def _what_removal_shows(case: Case) -> bool:
    """Whether removing keys, with the positions of the others, is the same call by definition:
    positions are read from the context, or play no part.
    """
    inputs = case.inputs()
    module = case.module()
    out = case.call(inputs, module)
    places = [torch.arange(x.shape[-2]) for x in (inputs.q, inputs.k)]
    gap = case.condition.max_length - max(len(places[0]), len(places[1]))
    spread = [x + gap * (x > len(x) // 2) for x in places]  # no position that it was not built for
    placed = inputs.with_context(query_positions=spread[0], key_positions=spread[1])
    if excess(out, case.call(placed, module))[0] > 1e-9:
        return True
    return _order_plays_no_part(case, inputs, module, out)


def _order_plays_no_part(case: Case, inputs: Inputs, module: Attention, out: Tensor) -> bool:
    length = inputs.k.shape[-2]
    order = torch.randperm(length, generator=case.generator(9))
    if case.pattern.causal and not inputs.cross:
        order = torch.cat([torch.randperm(length - 1, generator=case.generator(9)),
                           torch.tensor([length - 1])])  # fmt: skip

    def moved(x: Tensor) -> Tensor:
        return x[:, order]

    again = case.call(inputs.changed(None if inputs.cross else moved, moved), module)
    if case.pattern.causal and not inputs.cross:
        return excess(out[:, :, -1], again[:, :, -1])[0] <= 1e-9
    want: Callable[[Tensor], Tensor] = (lambda x: x) if inputs.cross else (lambda x: x[:, :, order])
    return excess(want(out), again)[0] <= 1e-9
