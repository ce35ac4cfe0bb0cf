"""The scan of a state that tokens decay, erase and write to, by its definition."""

import pytest
import torch
from torch.nn import functional as F

from attentions.shared.recurrent_scan import Writes, recurrent_loop, recurrent_scan, recurrent_step
from tests.attentions.cases import draw, error, gradients

LENGTHS = [0, 1, 7, 63, 64, 65, 200]
"""Around the borders of chunks and of the blocks within"""


def tokens(length, steps=1, channels=6, erases=True, rate=1.0, seed=0):
    """Queries, writes and a state, keys of length one."""
    shape = (2, 3, length * steps)
    q, k, v, g, b, state = draw(
        (2, 3, length, 6), (*shape, 6), (*shape, 4), (*shape, channels), (*shape, 1), (2, 3, 6, 4),
        seed=seed,
    )  # fmt: skip
    k = F.normalize(k, dim=-1)
    decay = -rate * g.abs() if channels else None
    return q, Writes(k, v, decay, 2 * b.sigmoid() * k if erases else None, steps), state


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("channels", [0, 1, 6])
@pytest.mark.parametrize("erases", [False, True])
def test_chunks_give_what_single_steps_give(length, steps, channels, erases):
    q, writes, state = tokens(length, steps, channels, erases)
    want = recurrent_loop(q, writes, state)
    out, last = recurrent_scan(q, writes, state)
    assert error(out, want) <= 1e-12
    assert error(last, recurrent_step(state, writes)) <= 1e-12
    assert error(recurrent_scan(None, writes, state)[1], last) <= 1e-12


@pytest.mark.parametrize("rate", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("channels", [1, 6])
def test_however_fast_a_state_is_forgotten(rate, channels):
    q, writes, state = tokens(150, 1, channels, rate=rate)
    assert error(recurrent_scan(q, writes, state)[0], recurrent_loop(q, writes, state)) <= 1e-12


@pytest.mark.parametrize("channels", [0, 1, 6])
@pytest.mark.parametrize("erases", [False, True])
def test_gradients_are_those_of_single_steps(channels, erases):
    q, writes, state = tokens(70, 2, channels, erases)
    given = [x for x in writes.tensors() if x is not None]

    def through(scan):
        def function(q, state, *tensors):
            rest = list(tensors)
            own = [None if x is None else rest.pop(0) for x in writes.tensors()]
            return scan(q, writes.with_tensors(own), state)

        return function

    gradient = draw((2, 3, 70, 4), seed=3)[0]
    got = gradients(through(lambda *a: recurrent_scan(*a)[0]), [q, state, *given], gradient)
    want = gradients(through(recurrent_loop), [q, state, *given], gradient)
    for found, wanted in zip(got[1], want[1], strict=True):
        assert error(found, wanted) <= 1e-11


def test_single_precision_over_a_long_sequence():
    q, writes, state = tokens(2048, rate=0.02)
    want = recurrent_loop(q, writes, state)
    single = writes.with_tensors([x.float() for x in writes.tensors()])
    assert error(recurrent_scan(q.float(), single, state.float())[0], want) <= 1e-6


@pytest.mark.parametrize("erases", [False, True])
def test_what_is_later_changes_nothing(erases):
    q, writes, state = tokens(100, erases=erases)
    before, _ = recurrent_scan(q, writes, state)
    later = torch.arange(100)[None].expand(2, -1) > 40
    after, _ = recurrent_scan(q, writes.without(later), state)
    assert torch.equal(after[:, :, :41], before[:, :, :41])
    assert not torch.equal(after[:, :, 41], before[:, :, 41])


def test_masked_tokens_that_keep_their_decay():
    q, writes, state = tokens(30)
    valid = torch.arange(30)[None].expand(2, -1) % 3 > 0
    only = writes.only(valid)
    want = state
    for t in range(30):
        own = writes.with_tensors([x[:, :, t : t + 1] for x in writes.tensors()])
        if not valid[0, t]:
            own = own.with_tensors([0 * own.keys, own.values, own.decay, own.erase])
        want = recurrent_step(want, own)
    assert error(recurrent_scan(q, only, state)[1], want) <= 1e-12
