"""Stick-breaking attention: its weights by hand, the reference of flash-linear-attention, and what
sticks do whatever the scores are.
"""

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention, tokens_first

NAIVE = "ops/stickbreaking_attn/naive.py"


def weights_of(attention, q, k, context=None):
    """(B, H, Lq, Lk): what values that are the unit vectors give."""
    length = k.shape[-2]
    v = torch.eye(length, dtype=q.dtype).expand(*k.shape[:2], -1, -1)
    return attention(q, k, v, context)


@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def test_agrees_with_flash_linear_attention(length, current):
    q, k, v = qkv(length, length)
    (grad,) = draw(v.shape, seed=3)
    naive = flash_linear_attention(NAIVE).naive_stickbreaking_attn

    def theirs(*x):
        return naive(*tokens_first(*x), attend_current=current)[0].transpose(1, 2)

    attention = module("stick-breaking", "CS", current=current)
    out, found = gradients(attention, (q, k, v), grad)
    want_out, want = gradients(theirs, (q, k, v), grad)
    assert error(out, want_out) <= 1e-12
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-11
    single = [x.float() for x in (q, k, v)]
    assert error(attention.float()(*single), theirs(*single).double()) <= NEAR


@pytest.mark.parametrize("pattern", ["CS", "NC", "CC"])
def test_keys_take_their_part_of_what_nearer_ones_left(pattern):
    q, k, v = qkv(19 if pattern == "CS" else 7, 19)
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, [2, 3, 11]] = False
    attention = module("stick-breaking", pattern)
    v = v.masked_fill(~mask[:, None, :, None], 0.0)
    out = attention(q, k, v, AttentionContext(key_mask=mask))
    for batch, head, row in ((0, 1, 6), (1, 0, 5), (1, 2, q.shape[2] - 1)):
        last = row if pattern == "CS" else 19
        left, want = 1.0, torch.zeros(5, dtype=torch.float64)
        for key in reversed(range(last)):
            if mask[batch, key]:
                score = q[batch, head, row] @ k[batch, head, key] / 5**0.5
                part = 1 / (1 + torch.exp(-score))
                want += left * part * v[batch, head, key]
                left = left * (1 - part)
        assert error(out[batch, head, row], want) <= 1e-12


@pytest.mark.parametrize("pattern", ["CS", "NC", "CC"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_weights_are_parts_of_one_stick(pattern, scale):
    q, k, _ = qkv()
    weights = weights_of(module("stick-breaking", pattern), scale * q, k)
    assert weights.min() >= 0
    assert weights.sum(-1).max() <= 1 + 1e-12
    if pattern == "CS":
        assert weights.triu(0).abs().max() == 0


def test_equal_scores_break_it_geometrically():
    q, k, _ = qkv()
    weights = weights_of(module("stick-breaking", "CS"), 0 * q, k)
    want = 0.5 ** torch.arange(1, 19, dtype=torch.float64)
    assert error(weights[0, 0, -1, :-1].flip(0), want) <= 1e-12


def test_the_nearest_of_two_sure_keys_takes_all():
    q, k, _ = draw((1, 1, 6, 5), (1, 1, 6, 5), (1, 1, 6, 5))
    k[..., [1, 3], :] = 100 * q[..., 5:, :]
    k[..., [0, 2, 4], :] = -100 * q[..., 5:, :]
    weights = weights_of(module("stick-breaking", "CS"), q, k)
    assert error(weights[0, 0, 5], torch.eye(6, dtype=torch.float64)[3]) <= 1e-12


def test_of_two_tokens_the_second_weighs_the_first_by_a_sigmoid():
    q, k, v = qkv(2, 2)
    out = module("stick-breaking", "CS")(q, k, v)
    score = (q[:, :, 1] * k[:, :, 0]).sum(-1, keepdim=True) / 5**0.5
    assert out[:, :, 0].abs().max() == 0
    assert error(out[:, :, 1], score.sigmoid() * v[:, :, 0]) <= 1e-12


def test_long_rows_of_large_scores_keep_their_digits_in_float32():
    q, k, v = (6 * x.float() for x in draw(*[(1, 2, 1500, 16)] * 3))
    attention = module("stick-breaking", "CS", 16).float()
    want = attention.double()(q.double(), k.double(), v.double())
    assert error(attention.float()(q, k, v), want) <= 2e-5
