"""Norms and gates in the place of the softmax denominator."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from attentions.shared.masks import sees_a_key, visible
from cab import AttentionContext
from cab.errors import OptionError
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
NORMS = ["l2", "rms", "layernorm", "div-s", "gate-div-s", "clamp-denom"]


def tokens(pattern, dim=5):
    q, k, v = qkv(13 if pattern.endswith("C") else 19, 19, dim)
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, [0, 1, 7, 18]] = False
    (x,) = draw((2, q.shape[2], 3 * dim), seed=5)
    own = None if pattern.endswith("C") else mask
    if own is not None:  # the queries of masked tokens come as zeros
        q, x = q.masked_fill(~own[:, None, :, None], 0.0), x.masked_fill(~own[..., None], 0.0)
    return q, k, v, AttentionContext(own, mask, query_input=x)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_l2_norm_is_that_of_softmax_attention(pattern):
    q, k, v, context = tokens(pattern)
    softmax, attention = module("softmax", pattern), module("softmax-norm", pattern)
    (grad,) = draw((*q.shape[:3], 5), seed=1)
    for given in (None, context):
        want, slopes = gradients(partial(_directions, softmax, given), (q, k, v), grad)
        got, found = gradients(partial(attention, context=given), (q, k, v), grad)
        assert error(got, want) <= 1e-12
        assert all(error(x, y) <= 1e-10 for x, y in zip(found, slopes, strict=True))


def _directions(attention, given, *x):
    return F.normalize(attention(*x, given), dim=-1)


def test_the_l2_norm_of_the_numerator_itself():
    q, k, v, _ = tokens("CS")
    seen = torch.ones(19, 19).tril()
    numerator = ((q @ k.mT / 5**0.5).exp() * seen) @ v
    assert error(module("softmax-norm", "CS")(q, k, v), F.normalize(numerator, dim=-1)) <= 1e-12


@pytest.mark.parametrize("norm", ["rms", "layernorm"])
def test_the_other_norms_are_those_of_softmax_attention(norm):
    q, k, v, context = tokens("NS")
    attention = module("softmax-norm", "NS", norm=norm)
    weight, shift = draw((5,), (5,), seed=8)
    attention.weight.data.copy_(weight)
    out = module("softmax", "NS")(q, k, v, context)
    if norm == "rms":
        want = out / (out.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    else:
        attention.bias.data.copy_(shift)
        centred = out - out.mean(-1, keepdim=True)
        want = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + shift
    assert error(attention(q, k, v, context), want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_forms_that_write_out_the_scores(pattern, scale):
    q, k, v, context = tokens(pattern)
    q = scale * q
    mask = visible(Pattern.parse(pattern), q.shape[2], 19, context).expand(2, 3, -1, -1)
    scores = q @ k.mT / 5**0.5
    weights = scores.exp() * mask
    want = weights @ v / weights.sum(-1, keepdim=True).clamp(min=1)
    got = module("softmax-norm", pattern, norm="clamp-denom")(q, k, v, context)
    assert error(got, want) <= 1e-12
    weights = scores.clamp(max=5).exp() * mask
    want = weights @ v / mask.sum(-1, keepdim=True).clamp(min=1)
    assert error(module("softmax-norm", pattern, norm="div-s")(q, k, v, context), want) <= 1e-12
    gated = module("softmax-norm", pattern, norm="gate-div-s")
    gates = (context.query_input @ gated.gate.weight.mT + gated.gate.bias).sigmoid()
    got = gated(q, k, v, context)
    assert error(got, gates.mT[..., None] * want) <= 1e-12


def test_a_gate_needs_the_layer_input():
    with pytest.raises(ValueError, match="query_input"):
        module("softmax-norm", "CC", norm="gate-div-s")(*qkv())


def test_norms_are_named():
    with pytest.raises(OptionError, match="norm"):
        module("softmax-norm", "NS", norm="l1")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_rows_without_keys_are_zeros_and_the_reference_agrees(norm, pattern):
    q, k, v, context = tokens(pattern)
    context.key_mask[1] = False
    attention = module("softmax-norm", pattern, norm=norm)
    for parameter in attention.parameters():
        parameter.data.add_(0.5)
    (grad,) = draw((*q.shape[:3], 5), seed=1)
    got, found = gradients(lambda *x: attention(*x, context), (q, k, v), grad)
    want, slopes = gradients(lambda *x: attention.reference(*x, context), (q, k, v), grad)
    assert not got[1].any()
    assert got[0].abs().sum(-1)[:, 2:].all()
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-10 for x, y in zip(found, slopes, strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_decoding_with_every_norm(norm):
    q, k, v, context = tokens("CS")
    attention = module("softmax-norm", "CS", norm=norm)
    x = context.query_input
    want = attention(q, k, v, AttentionContext(query_input=x))
    state = attention.prefill(k[:, :, :5], v[:, :, :5])
    for t in range(5, 19):
        own = slice(t, t + 1)
        row, state = attention.step(
            *(y[:, :, own] for y in (q, k, v)), state, AttentionContext(query_input=x[:, own])
        )
        assert error(row, want[:, :, own]) <= 1e-12


def test_one_channel_has_no_direction_to_learn():
    q, k, _ = qkv()
    (v,) = draw((2, 3, 19, 1), seed=2)
    attention = module("softmax-norm", "NS")
    q.requires_grad_()
    out = attention(q.float(), k.float(), 1e-3 * v.float())
    assert torch.equal(out.abs(), torch.ones_like(out))
    (slope,) = torch.autograd.grad(out.sum(), q)
    assert not slope.any()


def test_second_derivatives_of_the_norm():
    q, k, v = (x[:1, :1, :4, :3].requires_grad_() for x in qkv())
    attention = module("softmax-norm", "NS", dim=3)
    assert torch.autograd.gradgradcheck(attention.reference, (q, k, v))


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("length_q", [1, 7])
def test_which_rows_see_a_key(pattern, length_q):
    (x,) = draw((5, 7))
    context = AttentionContext(key_mask=x > 0.7)
    want = visible(pattern, length_q, 7, context).any(-1, keepdim=True)
    assert torch.equal(sees_a_key(pattern, length_q, context).expand_as(want), want)
    assert sees_a_key(pattern, length_q, AttentionContext()) is None
