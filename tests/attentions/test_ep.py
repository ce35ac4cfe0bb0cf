"""Efficient probing: cross attention without projections, mean pooling, masks."""

import copy

import pytest
import torch

from cab import AttentionContext
from cab.errors import UnsupportedPatternError
from tests.attentions.cases import draw, error, gradients, module, qkv


def source(length, width=15):
    return draw((2, length, width), seed=7)[0]


def with_queries(attention, scale=1.0):
    with torch.no_grad():
        attention.queries.copy_(scale * draw(attention.queries.shape, seed=8)[0])
    return attention


def test_is_cross_attention_with_keys_of_the_full_width_and_values_in_slices():
    q, k, v = qkv(7, 19)
    attention, x = with_queries(module("ep", "NC")), source(19)
    # W_q = W_k = I: all heads see the tokens themselves; block-diagonal slicing of the values.
    heads = x[:, None].expand(-1, 3, -1, -1)
    queries = attention.queries[None, :, None].expand(2, -1, -1, -1)
    want = torch.nn.functional.scaled_dot_product_attention(queries, heads, v)
    got = attention(q, k, v, AttentionContext(key_input=x))
    assert error(got, want.expand(-1, -1, 7, -1)) <= 1e-13
    assert error(got, attention.reference(q, k, v, AttentionContext(key_input=x))) <= 1e-13


def test_queries_of_zero_are_mean_pooling():
    q, k, v = qkv(7, 19)
    attention = with_queries(module("ep", "NC"), 0.0)
    mask = torch.arange(19).expand(2, -1) < torch.tensor([[19], [8]])
    got = attention(q, k, v, AttentionContext(key_mask=mask, key_input=source(19)))
    for row, n in ((0, 19), (1, 8)):
        want = v[row, :, :n].mean(-2, keepdim=True).expand(-1, 7, -1)
        assert error(got[row], want) <= 1e-14


def test_queries_and_keys_are_not_read():
    q, k, v = qkv(7, 19)
    attention, context = with_queries(module("ep", "NC")), AttentionContext(key_input=source(19))
    assert torch.equal(attention(q, k, v, context), attention(q + 1, 2 * k, v, context))


def test_equals_the_reference_with_gradients():
    q, k, v = qkv(7, 19)
    attention, x = with_queries(module("ep", "NC")), source(19)
    mask = torch.rand(2, 19, generator=torch.Generator().manual_seed(1)) > 0.5
    (grad,) = draw(q.shape, seed=1)
    leaves = [*attention.parameters()]
    results = []
    for form in (attention, attention.reference):

        def run(v, x, form=form):
            return form(q, k, v, AttentionContext(key_mask=mask, key_input=x))

        out, found = gradients(run, (v, x), grad)
        of_parameters = torch.autograd.grad((run(v, x) * grad).sum(), leaves)
        results.append([out, *found, *of_parameters])
    for a, b in zip(*results, strict=True):
        assert error(a, b) <= 1e-13


def test_the_first_queries_are_small_and_copies_are_alike():
    attention, other = module("ep", "NC", dim=64), module("ep", "NC", dim=64)
    assert 0.015 < attention.queries.std() < 0.025
    other.load_state_dict(attention.state_dict())
    inputs = qkv(3, 9, 64)
    context = AttentionContext(key_input=source(9, 192))
    assert torch.equal(copy.deepcopy(attention)(*inputs, context), other(*inputs, context))


def test_what_it_needs_is_said():
    with pytest.raises(ValueError, match="key_input"):
        module("ep", "NC")(*qkv())
    with pytest.raises(UnsupportedPatternError, match="one output"):
        module("ep", "CS")
