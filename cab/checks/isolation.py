"""A call depends on its own inputs alone, and changes nothing but its output: rows of the batch
are apart, nothing is carried from call to call, inputs and the state of torch stay as they are.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from cab.attention_contract import Attention
from cab.checks.case import Case
from cab.checks.compare import excess, rounding_bar
from cab.checks.conditioning import rounding_noise
from cab.checks.conditions import Condition
from cab.checks.inputs import Inputs

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64

_BATCHES = (
    Condition(F32, 9, 2, 8, 8, 60, 70),
    Condition(BF16, 6, 5, 16, 8, 100, 190, layer_index=2, layers=3),
    Condition(F16, 4, 2, 64, 64, 33, 64, mask="mixed", scale=0.5),
    Condition(F32, 3, 2, 8, 8, 150, 1030, grad="no_grad", given="none"),
    Condition(F32, 5, 3, 32, 16, 31, 31, autocast=True, given="all", strided=True),
    Condition(F64, 2, 8, 4, 4, 1, 1),
)


def check_rows_apart(case: Case) -> None:
    """A batch row does not change in eval mode when the others do: any dtype, size and mask."""
    for at in case.through(_BATCHES, "rows apart"):
        one = at.with_(training=False)
        if one.condition.batch == 1:
            one = one.with_(batch=2)
        inputs = one.inputs()
        out = one.call(inputs)
        row = random.Random(f"row {one.seed}").randrange(len(out))
        others = _other_rows(one, inputs, row)
        again = one.call(others)
        difference, size = excess(out[row], again[row])
        bar = rounding_bar(BF16 if one.condition.autocast else out.dtype) * size
        if difference > bar and out.dtype in (F32, F64):
            bar += rounding_noise(one, inputs, out)
        if not difference <= bar:
            raise one.fail("batch rows influence each other", difference)


def mixes_rows(case: Case, inputs: Inputs, out: Tensor) -> bool:
    """Whether the first row follows the others: training may use the batch (its statistics)."""
    again = case.call(_other_rows(case, inputs, 0))
    return excess(out[0], again[0])[0] > rounding_bar(out.dtype) * excess(out[0], out[0])[1]


def _other_rows(case: Case, inputs: Inputs, row: int) -> Inputs:
    generator = case.generator(4)
    keep = torch.arange(len(inputs.q)) == row

    def other(x: Tensor) -> Tensor:
        if len(x) == 1 or not x.is_floating_point():
            return x
        new = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        new = new * 3 * case.condition.scale - case.condition.offset
        return torch.where(keep.view(-1, *(1,) * (x.ndim - 1)), x, new.to(x.dtype))

    out = inputs.changed(other, other, of_context=False)
    mask = inputs.key_mask
    if mask is None:
        return out
    flipped = torch.where(keep[:, None], mask, mask.roll(1, dims=1) | ~mask)
    own = inputs.given.query_mask if inputs.cross else flipped
    return out.with_context(key_mask=flipped, query_mask=own)


_OFTEN = 120
"""Calls between, in which something may be counted"""

_CALLS = (
    Condition(F32, 3, 2, 8, 8, 20, 30),
    Condition(F32, 2, 4, 16, 16, 64, 128, mask="mixed", scale=3.0),
    Condition(BF16, 2, 2, 32, 32, 40, 60, layer_index=1, layers=2),
    Condition(F64, 2, 2, 8, 6, 150, 190, training=True, grad="grad"),
)


def check_calls(case: Case) -> None:
    """Nothing is carried from one evaluation to the next, and an output stays as it was given;
    an evaluation does not depend on the random state; no call writes into its inputs, reseeds
    torch or leaves a switch of it changed.
    """
    for at in case.through(_CALLS, "calls", longest=200):
        _inputs_untouched(at)
        _random_state(at)
        _nothing_carried(at.with_(training=False), _OFTEN if at.number == 0 else 0)


def _nothing_carried(case: Case, between: int) -> None:
    first, second = case.inputs(), case.at_seed(case.seed + 11).inputs()
    module = case.module()
    out = case.call(first, module)
    kept = out.detach().clone()
    fresh = case.call(second)
    _agree(case, fresh, case.call(second, module), "depends on the call before")
    _agree(case, kept, out, "is overwritten by a later call")
    _agree(case, kept, case.call(first, module), "differs when it is evaluated again")
    with torch.no_grad():
        for name, x in first.tensors().items():
            source = second.tensors()[name]
            if x.is_floating_point():
                x.copy_(source)
    refilled = second if second.context is None else _same_masks(second, first)
    _agree(case, case.call(refilled), case.call(first, module), "is of what its inputs held before")
    for i in range(between):  # other shapes between, and often
        other = case.with_(length_q=3 + i % 4, length_k=3 + i % 4, mask="")
        case.call(other.at_seed(i).inputs(), module)
    _agree(case, fresh, case.call(second, module), "depends on how often it was called")


def _same_masks(inputs: Inputs, like: Inputs) -> Inputs:
    return inputs.with_context(key_mask=like.given.key_mask, query_mask=like.given.query_mask)


def _agree(case: Case, want: Tensor, got: Tensor, complaint: str) -> None:
    if want.shape != got.shape:
        raise case.fail(f"an output {complaint}: shape {tuple(got.shape)}")
    difference, _ = excess(want, got)
    if difference:
        raise case.fail(f"an output {complaint}", difference)


def _inputs_untouched(case: Case) -> None:
    inputs = case.inputs()
    module = case.module()
    before = {name: (x.clone(), x._version) for name, x in inputs.tensors().items()}
    fields = copy.copy(vars(inputs.given))
    leaves = None
    if case.condition.grad == "grad":
        tracked, leaves = inputs.leaves()
        held = {name: x.detach().clone() for name, x in leaves.items()}
        out = case.call(tracked, module)
        if out.requires_grad:
            out.float().sum().backward()
        for name, x in leaves.items():
            if not torch.equal(x.detach(), held[name]):
                raise case.fail(f"a call writes into its input {name}")
    case.with_(grad="no_grad").call(inputs, module)
    if any(vars(inputs.given)[name] is not value for name, value in fields.items()):
        raise case.fail("a call changes the fields of its context")
    for name, x in inputs.tensors().items():
        held_x, version = before[name]
        if x._version != version or not torch.equal(x, held_x):
            raise case.fail(f"a call writes into its input {name}")


def _random_state(case: Case) -> None:
    inputs = case.inputs()
    drawn, outs = [], []
    with _known_switches() as changed:
        for seed in (1, 2):
            module = case.module()
            with torch.random.fork_rng(devices=[]), case.autocast():
                torch.default_generator.manual_seed(seed)
                outs.append(inputs.run(module).detach())
                drawn.append(torch.rand(4))
        if changed():
            raise case.fail(f"a call changes a switch of torch: {changed()}")
    if torch.equal(*drawn):
        raise case.fail("a call seeds torch's random numbers anew, which the model shares")
    if not case.condition.training and not torch.equal(*outs):
        raise case.fail("an evaluation draws random numbers: it depends on torch's seed")


@contextlib.contextmanager
def _known_switches() -> Iterator[Callable[[], str]]:
    """Puts torch's switches into a known state, and back at the end; gives what says which of them
    have been changed since.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    dtype, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), _grad()
    if deterministic:
        torch.use_deterministic_algorithms(False)

    def changed() -> str:
        now = {
            "autograd": _grad() != grad,
            "default dtype": torch.get_default_dtype() is not dtype,
            "threads": torch.get_num_threads() != threads,
            "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        }
        return ", ".join(name for name, different in now.items() if different)

    try:
        yield changed
    finally:
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(grad)


def _grad() -> bool:
    return torch.is_grad_enabled()


_PLACES = (
    Condition(F64, 2, 2, 8, 8, 40, 50, layer_index=2, layers=4),
    Condition(F32, 3, 4, 16, 16, 33, 100, mask="mixed"),
    Condition(BF16, 2, 2, 64, 32, 20, 65),
)


def check_places(case: Case) -> None:
    """Outputs do not depend on the longest length that the model may feed; a mask of True alone is
    no mask; positions 0, 1, 2, ... are those of tokens that come without, of any batch row.
    """
    for at in case.through(_PLACES, "places", longest=300):
        one = at.with_(training=False)
        inputs = one.inputs()
        out = one.call(inputs)
        longer = one.with_(max_length=one.condition.max_length * 4 + 1000)
        if (module := _with_parameters_of(one.module(), longer.module())) is not None:
            _near(one, inputs, out, longer.call(inputs, module), "depends on max_length")
        _near(one, inputs, out, one.call(_laid_out(inputs)), "depends on strides of its inputs")
        if inputs.context is None:
            continue
        if inputs.key_mask is None:
            mask = torch.ones(inputs.k.shape[0], inputs.k.shape[-2], dtype=torch.bool)
            own = inputs.given.query_mask if inputs.cross else mask
            masked = inputs.with_context(key_mask=mask, query_mask=own)
            _near(one, inputs, out, one.call(masked), "differs under a mask that is all True")
        if inputs.given.key_positions is None:
            places = [torch.arange(x.shape[-2]) for x in (inputs.q, inputs.k)]
            placed = inputs.with_context(query_positions=places[0], key_positions=places[1])
            _near(one, inputs, out, one.call(placed), "differs where positions 0, 1, .. are given")
            rows = [x.expand(len(out), -1) for x in places]
            placed = inputs.with_context(query_positions=rows[0], key_positions=rows[1])
            _near(one, inputs, out, one.call(placed), "differs where each row has its positions")


def _laid_out(inputs: Inputs) -> Inputs:
    """The same numbers, heads first in memory or tokens first: as they were not."""

    def other(x: Tensor) -> Tensor:
        if x.is_contiguous():
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        return x.contiguous()

    return replace(inputs, q=other(inputs.q), k=other(inputs.k), v=other(inputs.v))


def _with_parameters_of(source: Attention, target: Attention) -> Attention | None:
    """The target with the source's parameters; None where its own have other shapes."""
    have, want = source.state_dict(), target.state_dict()
    if {n: x.shape for n, x in have.items()} != {n: x.shape for n, x in want.items()}:
        return None
    target.load_state_dict(have)
    return target


def _near(case: Case, inputs: Inputs, want: Tensor, got: Tensor, complaint: str) -> None:
    if want.shape != got.shape:
        raise case.fail(f"an output {complaint}: shape {tuple(got.shape)}")
    difference, size = excess(want, got, inputs.valid_queries())
    bar = rounding_bar(BF16 if case.condition.autocast else want.dtype, True) * size
    if difference > bar:
        bar += rounding_noise(case, inputs, want)
    if not difference <= bar:
        raise case.fail(f"an output {complaint}", difference)
