"""Taylor polynomials in the place of the exponential."""

import math

import pytest
import torch

from attentions.shared.masks import visible
from attentions.shared.taylor import polynomial_attention, taylor_features, taylor_width
from cab import AttentionContext
from cab.errors import OptionError
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def polynomial(attention, order, context, q, k, v):
    """Dense, term by term."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    weights = sum(scores**n / math.factorial(n) for n in range(order + 1))
    mask = visible(attention.pattern, q.shape[2], k.shape[2], context)
    weights = weights if mask is None else weights * mask
    return weights @ v / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("order", [2, 4, 10])
@pytest.mark.parametrize("length", [19, 85, 150])
def test_equals_the_dense_polynomial(pattern, order, length):
    # Width 5 has 21 features: more keys than these are summed feature by feature.
    q, k, v = qkv(length if pattern.endswith("S") else 13, length)
    attention = module("softmax-taylor", pattern, order=order)
    (grad,) = draw(q.shape, seed=1)
    got, found = gradients(attention, (q, k, v), grad)
    want, slopes = gradients(lambda *x: polynomial(attention, order, None, *x), (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-11 for x, y in zip(found, slopes, strict=True))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_recurrence_is_the_written_out_form_under_masks(pattern):
    q, k, v = qkv(40 if pattern.endswith("S") else 13, 40)
    mask = torch.rand(2, 40, generator=torch.Generator().manual_seed(3)) > 0.4
    mask[1, :5] = False
    own = None if pattern.endswith("C") else mask
    if own is not None:
        q = q.masked_fill(~own[:, None, :, None], 0.0)
    context = AttentionContext(own, mask)
    attention = module("softmax-taylor", pattern)
    got = attention(q, k, v, context)
    want = polynomial_attention(q, k, v, 2, attention.pattern, context)
    assert error(got, want) <= 1e-12
    assert error(got, attention.reference(q, k, v, context)) <= 1e-12


@pytest.mark.parametrize(("order", "least", "most"), [(2, 1e-2, 1), (16, 0, 1e-4), (40, 0, 1e-13)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_converges_to_softmax(pattern, order, least, most):
    q, k, v = qkv(19, 19, 16)
    want = module("softmax", pattern, 16)(q, k, v)
    got = module("softmax-taylor", pattern, 16, order=order)(q, k, v)
    assert least <= error(got, want) <= most


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_products_of_features_are_the_polynomial(dim):
    x, y = draw((1, 2, 9, dim), (1, 2, 9, dim))
    s = x @ y.mT / dim**0.5
    features = taylor_features(x)
    assert features.shape[-1] == taylor_width(dim)
    assert error(features @ taylor_features(y).mT, 1 + s + s**2 / 2) <= 1e-13


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("order", [2, 6])
def test_decoding(pattern, order):
    q, k, v = qkv()
    attention = module("softmax-taylor", pattern, order=order)
    want, source = attention(q, k, v), 19 if pattern == "CC" else 5
    state = attention.prefill(k[:, :, :source], v[:, :, :source])
    for t in range(0 if pattern == "CC" else 5, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        row, state = attention.step(q[:, :, own], *new, state)
        assert error(row, want[:, :, own]) <= 1e-12
    if order == 2:
        assert sum(x[0].numel() for x in state.tensors.values()) == attention.state_size(19)


def test_scores_far_below_zero_do_not_cancel():
    q, k, v = (2.5 * x for x in qkv(19, 19, 4))
    want = module("softmax", "NS", 4)(q, k, v)
    got = module("softmax-taylor", "NS", 4, order=80).float()(*(x.float() for x in (q, k, v)))
    assert (q @ k.mT / 2).min() < -12
    assert error(got, want) <= 1e-5


def test_orders_are_even():
    for order in (3, 79):
        with pytest.raises(ValueError, match="even"):
            module("softmax-taylor", "CS", order=order)
    with pytest.raises(OptionError, match="order"):
        module("softmax-taylor", "CS", order=0)
    assert module("softmax-taylor", "CS").pattern is Pattern.CAUSAL_SELF
