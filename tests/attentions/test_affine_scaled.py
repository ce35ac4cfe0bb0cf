"""Affine-scaled attention: its closed form, its running mean, what it needs."""

import copy

import pytest
import torch

from attentions.shared.masks import visible
from attentions.shared.visible_means import visible_mean
from cab import AttentionContext
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def tokens(pattern):
    q, k, v = qkv(13 if pattern.endswith("C") else 19, 19)
    (x,) = draw((2, q.shape[2], 15), seed=5)
    return q, k, v, AttentionContext(query_input=4 * x)


def built(pattern, scale=1.0, average=0.3, **options):
    attention = module("affine-scaled", pattern, **options)
    (weight,) = draw(attention.scale.weight.shape, seed=6)
    attention.scale.weight.data.copy_(scale * weight)
    attention.average.fill_(average)
    return attention


def holes(pattern, context):
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, [0, 5, 18]] = False
    context.key_mask = mask
    context.query_mask = None if pattern.endswith("C") else mask
    return context


@pytest.mark.parametrize("pattern", PATTERNS)
def test_scales_of_one_are_softmax(pattern):
    q, k, v, context = tokens(pattern)
    attention = built(pattern, average=1.0)
    # 0.1 w·x + 0.5 is clipped at 1.
    attention.scale.weight.data.zero_()[:, 0] = 1.0
    context.query_input = torch.full_like(context.query_input, 100.0)
    assert error(attention(q, k, v, context), module("softmax", pattern)(q, k, v)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_scales_of_zero_are_a_share_of_the_mean(pattern):
    q, k, v, context = tokens(pattern)
    attention = built(pattern)
    attention.scale.weight.data.zero_()[:, 0] = -1.0
    context.query_input = torch.full_like(context.query_input, 100.0)
    seen = visible(attention.pattern, q.shape[2], 19, None)
    seen = torch.ones(q.shape[2], 19).double() if seen is None else seen.double()
    want = 0.3 * (seen / seen.sum(-1, keepdim=True)) @ v
    assert error(attention(q, k, v, context), want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_closed_form_is_the_matrix_whose_rows_add_up_to_the_average(pattern):
    q, k, v, context = tokens(pattern)
    attention, context = built(pattern), holes(pattern, context)
    out = attention(q, k, v, context)
    assert error(out, attention.reference(q, k, v, context)) <= 1e-12
    ones = attention(q, k, torch.ones_like(v), context)
    seen = visible(attention.pattern, q.shape[2], 19, context).any(-1).expand(2, 3, q.shape[2])
    assert error(ones[seen], torch.full_like(ones[seen], 0.3)) <= 1e-12
    assert not ones[~seen].any()


def test_the_running_mean_is_of_valid_queries_and_of_training_alone():
    q, k, v, context = tokens("NS")
    attention, context = built("NS", average=0.0), holes("NS", context)
    before = attention(q, k, v, context)
    assert not attention.average.any()
    attention.train()
    first = attention(q, k, v, context)
    assert torch.equal(first, before)  # the mean that earlier passes have left
    x = context.query_input[context.query_mask]
    scales = (0.1 * x @ attention.scale.weight.mT + 0.5).clamp(0, 1).mean(0)
    assert error(attention.average, 0.1 * scales) <= 1e-12
    assert error(attention(q, k, v, context), first) > 1e-3
    assert error(attention.average, 0.19 * scales) <= 1e-12
    other = copy.deepcopy(attention)
    assert torch.equal(other.average, attention.average)
    fresh = module("affine-scaled", "NS")
    fresh.load_state_dict(attention.state_dict())
    assert torch.equal(fresh.eval()(q, k, v, context), attention.eval()(q, k, v, context))


def test_a_batch_without_valid_queries_leaves_the_mean():
    q, k, v, context = tokens("NS")
    attention = built("NS").train()
    nothing = torch.zeros(2, 19, dtype=torch.bool)
    context.key_mask = context.query_mask = nothing
    assert not attention(q, k, v, context).any()
    assert torch.equal(attention.average, torch.full((3,), 0.3, dtype=torch.float64))


def test_scales_start_in_the_middle():
    q, k, v, context = tokens("NS")
    attention = module("affine-scaled", "NS")
    softmax = module("softmax", "NS")(q, k, v)
    assert error(attention(q, k, v, context), 0.5 * softmax) <= 1e-12
    paper = module("affine-scaled", "NS", start=0.0)
    want = 0.5 * (softmax - v.mean(-2, keepdim=True))
    assert error(paper(q, k, v, context), want) <= 1e-12


def test_it_needs_the_layer_input_and_a_momentum_below_one():
    with pytest.raises(ValueError, match="query_input"):
        module("affine-scaled", "CC")(*qkv())
    with pytest.raises(ValueError, match="momentum"):
        module("affine-scaled", "CC", momentum=1.0)


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("length_q", [1, 7])
def test_means_of_visible_tokens(pattern, length_q):
    (x,) = draw((2, 3, 7, 4))
    mask = torch.tensor([[0, 0, 1, 1, 0, 1, 1], [0] * 7]).bool()
    for context in (None, AttentionContext(key_mask=mask)):
        given = x if context is None else x.masked_fill(~mask[:, None, :, None], 0.0)
        seen = visible(pattern, length_q, 7, context)
        ones = torch.ones(1, 1, length_q, 7).double()
        seen = ones if seen is None else ones * seen
        want = seen @ given / seen.sum(-1, keepdim=True).clamp(min=1)
        got = visible_mean(given, pattern, length_q, context)
        assert error(got.expand_as(want), want) <= 1e-13
