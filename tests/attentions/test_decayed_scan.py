"""The scan of diagonal recurrences, chunk by chunk, against the loop over tokens."""

import pytest
import torch

from attentions.shared.decayed_scan import decayed_scan
from tests.attentions.cases import draw, error, gradients


def loop(decay, x, initial):
    states, state = [], initial
    for t in range(x.shape[1]):
        state = decay[:, t] * state + x[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


def inputs(length, factors, seed=0):
    """Factors of both extremes among them: what is forgotten at once, and what is never."""
    decay, x, initial = draw((2, length, *factors), (2, length, 3, 4), (2, 3, 4), seed=seed)
    return decay.sigmoid().round(decimals=1), x, initial


@pytest.mark.parametrize("factors", [(3, 4), (3, 1), (1, 1)])
@pytest.mark.parametrize("length", [1, 2, 16, 17, 24, 25, 26, 63, 130])
def test_equals_the_loop_with_gradients(length, factors):
    given = inputs(length, factors)
    (grad,) = draw((2, length, 3, 4), seed=1)
    want, wanted = gradients(loop, given, grad)
    got, found = gradients(decayed_scan, given, grad)
    assert error(got, want) <= 1e-14
    for x, y in zip(found, wanted, strict=True):
        assert x.shape == y.shape
        assert error(x, y) <= 1e-13


def test_derivatives_of_every_order():
    given = [x.requires_grad_() for x in inputs(21, (3, 1))]
    assert torch.autograd.gradcheck(decayed_scan, given)
    assert torch.autograd.gradgradcheck(decayed_scan, given)


def test_no_factor_is_inverted():
    decay, x, _ = inputs(100, (3, 4))
    decay = (decay * 1e-200).requires_grad_()
    states = decayed_scan(decay, x)
    assert error(states, x) <= 1e-15
    (grad,) = torch.autograd.grad(states.sum(), decay)
    assert grad.isfinite().all()


def test_empty_sequences_and_states():
    decay, x, initial = inputs(4, (3, 4))
    assert decayed_scan(decay[:, :0], x[:, :0], initial).shape == (2, 0, 3, 4)
    zeros = torch.zeros_like(initial)
    assert torch.equal(decayed_scan(decay, x), decayed_scan(decay, x, zeros))


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, None), (0, None, 1)])
def test_maps_over_another_dimension(in_dims):
    wide = [
        torch.stack([a, b]) for a, b in zip(inputs(30, (3, 1)), inputs(30, (3, 1), 1), strict=True)
    ]
    given = [
        x[0] if dim is None else x.movedim(0, dim) for x, dim in zip(wide, in_dims, strict=True)
    ]
    got = torch.func.vmap(decayed_scan, in_dims=in_dims)(*given)
    for i in range(2):
        own = [
            x if dim is None else x.select(dim, i) for x, dim in zip(given, in_dims, strict=True)
        ]
        assert error(got[i], decayed_scan(*own)) <= 1e-14
