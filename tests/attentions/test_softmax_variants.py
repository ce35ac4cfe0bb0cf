"""Softmax attention with a gate, a temperature, a second map or forgetting: where each is softmax
itself, and what it does by its formula.
"""

import math

import pytest
import torch

import cab
from attentions.shared.masks import visible
from cab import AttentionContext
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG = 19


def tokens(pattern, seed=5):
    """q, k, v and a context with the layer's inputs at queries and keys."""
    q, k, v = qkv(13 if pattern.endswith("C") else LONG, LONG)
    x, y = draw((2, q.shape[2], 15), (2, LONG, 15), seed=seed)
    return q, k, v, AttentionContext(query_input=x, key_input=y if pattern.endswith("C") else x)


def softmax(pattern, q, k, v):
    return module("softmax", pattern)(q, k, v)


@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_gate_scales_what_softmax_gives(pattern, gate):
    q, k, v, context = tokens(pattern)
    attention = module("gated-softmax", pattern, gate=gate)
    attention.gate.weight.data.zero_()
    want = softmax(pattern, q, k, v)
    assert error(attention(q, k, v, context), want / 2) <= 1e-12
    # One gate of the first head opens wide, where the first input is large.
    attention.gate.weight.data[0, 0] = 1e3
    context.query_input[..., 0] = 1.0
    found = attention(q, k, v, context)
    opened = slice(None) if gate == "headwise" else slice(0, 1)
    assert error(found[:, 0, :, opened], want[:, 0, :, opened]) <= 1e-12
    assert error(found[:, 1], want[:, 1] / 2) <= 1e-12


def test_gates_are_of_the_query_and_its_head():
    q, k, v, context = tokens("CC")
    attention = module("gated-softmax", "CC", gate="elementwise")
    gates = (attention.gate.weight @ context.query_input[1, 4]).sigmoid().view(q.shape[1], -1)
    want = gates * softmax("CC", q, k, v)[1, :, 4]
    assert error(attention(q, k, v, context)[1, :, 4], want) <= 1e-12


@pytest.mark.parametrize("name", ["gated-softmax", "fox"])
def test_without_layer_inputs_it_says_what_to_give(name):
    with pytest.raises(ValueError, match="AttentionContext"):
        module(name, "CS")(*qkv(LONG, LONG))


@pytest.mark.parametrize("pattern", ["NS", "NC", "CC"])
def test_a_scale_of_one_over_ln_n_is_softmax(pattern):
    q, k, v, _ = tokens(pattern)
    attention = module("ssmax", pattern, start=1 / math.log(LONG))
    assert error(attention(q, k, v), softmax(pattern, q, k, v)) <= 1e-6  # s is kept in float32
    attention.scale.data.zero_()
    assert error(attention(q, k, v), v.mean(-2, keepdim=True).expand(*q.shape[:3], -1)) <= 1e-12


def test_the_keys_that_are_seen_count():
    q, k, v, context = tokens("CS")
    context.key_mask = torch.ones(2, LONG, dtype=torch.bool)
    context.key_mask[0, [2, 3]] = False
    attention = module("ssmax", "CS", start=0.7, bias=True)
    attention.bias.data.fill_(0.2)
    found = attention(q, k, v.masked_fill(~context.key_mask[:, None, :, None], 0.0), context)
    rows = [n for n in range(LONG) if n not in (2, 3)]
    for row in (1, 6, 18):
        seen = [n for n in rows if n <= row]
        scores = q[0, :, row, None] @ k[0][:, seen].mT / q.shape[-1] ** 0.5
        # n to the power of s z, in a product of n factors of n
        scale = attention.scale[0].item() * math.log(len(seen)) + attention.bias[0].item()
        powers = (scale * scores).exp()
        want = (powers / powers.sum(-1, keepdim=True) @ v[0][:, seen])[:, 0]
        assert error(found[0, :, row], want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_difference_of_two_maps_by_hand(pattern):
    q, k, v = qkv(13 if pattern.endswith("C") else LONG, LONG, dim=4)
    attention = module("diff-attn", pattern, dim=4, norm=False)
    half = 2
    q1, k1, q2, k2 = attention.lambdas
    factor = (q1 @ k1).exp() - (q2 @ k2).exp() + 0.2  # 0.8 - 0.6 in the first layer
    mask = visible(attention.pattern, q.shape[2], LONG, None)
    maps = []
    for part in (slice(0, half), slice(half, None)):
        scores = q[..., part] @ k[..., part].mT / half**0.5
        maps.append((scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1))
    want = 0.8 * (maps[0] - factor * maps[1]) @ v
    assert error(attention(q, k, v), want) <= 1e-12


def test_equal_halves_leave_a_share_of_softmax_and_the_norm_takes_the_share_away():
    q, k, v = qkv(13, LONG, dim=4)
    q, k = (torch.cat([x[..., :2], x[..., :2]], -1) for x in (q, k))
    bare = module("diff-attn", "NC", dim=4, norm=False)
    normed = module("diff-attn", "NC", dim=4)
    for attention in (bare, normed):
        attention.lambdas.data.zero_()
    softmax_map = (q[..., :2] @ k[..., :2].mT / 2**0.5).softmax(-1) @ v
    assert error(bare(q, k, v), 0.8 * (1 - 0.2) * softmax_map) <= 1e-12
    size = (softmax_map.pow(2).mean(-1, keepdim=True) * 0.64 + 1e-5).sqrt()
    assert error(normed(q, k, v), 0.8 * 0.8 * softmax_map / size) <= 1e-9


def test_later_layers_take_away_more():
    first, later = (
        cab.attention("diff-attn", pattern="CS", heads=3, head_dim=4, layer_index=n, layers=4)
        for n in (0, 3)
    )
    assert first.first_lambda == pytest.approx(0.2)
    assert later.first_lambda == pytest.approx(0.8 - 0.6 * math.exp(-0.9))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_forgets_nothing_is_softmax(pattern):
    q, k, v, context = tokens(pattern)
    attention = module("fox", pattern)
    attention.forget.weight.data.zero_()
    attention.forget.bias.data.fill_(50.0)
    assert error(attention(q, k, v, context), softmax(pattern, q, k, v)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_weight_shrinks_with_every_gate_between(pattern):
    q, k, v, context = tokens(pattern)
    attention = module("fox", pattern)
    gates = attention.forget(context.key_input).sigmoid()
    batch, head, row = 1, 0, 7
    weights = torch.zeros(LONG, dtype=torch.float64)
    for key in range(LONG):
        if pattern == "CS" and key > row:
            continue
        low, high = (key, LONG - 1) if pattern.endswith("C") else sorted((key, row))
        kept = gates[batch, low + 1 : high + 1, head].prod()
        score = q[batch, head, row] @ k[batch, head, key] / q.shape[-1] ** 0.5
        weights[key] = score.exp() * kept
    want = weights / weights.sum() @ v[batch, head]
    assert error(attention(q, k, v, context)[batch, head, row], want) <= 1e-12


def test_long_sequences_lose_next_to_nothing_to_rounding():
    # c reaches -1,500: counted from the first token in float32, outputs are off by 2e-5.
    q, k, v = draw(*[(1, 3, 2048, 5)] * 3)
    (x,) = draw((1, 2048, 15), seed=1)
    context = AttentionContext(query_input=x, key_input=x)
    attention = module("fox", "CS")
    assert attention._log_gates(k, context).sum(-1).max() < -1000
    last = slice(-300, None)
    exact = attention(q, k, v, context)[..., last, :]
    short = attention.float()(
        *(y.float() for y in (q, k, v)),
        AttentionContext(query_input=x.float(), key_input=x.float()),
    )[..., last, :]
    assert error(short.double(), exact) <= 4e-6


def test_gates_learn_from_all_of_their_layer_input():
    q, k, v, context = tokens("CS")
    attention = module("fox", "CS")
    attention(q, k, v, context).square().sum().backward()
    assert attention.forget.weight.grad.abs().min() > 0


def test_patterns_are_those_of_the_records():
    for name in ("gated-softmax", "ssmax", "diff-attn", "fox"):
        assert set(type(module(name, "CS")).info.patterns) == set(Pattern)
