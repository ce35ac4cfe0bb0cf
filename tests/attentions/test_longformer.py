"""Longformer: a window and global tokens, where that is softmax, and what each token reads."""

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

LONG = 90


def build(**options):
    return module("longformer", "NS", **({"window": 5, "global_tokens": 2} | options))


def holes():
    rows = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    rows[0, -3:] = False
    return AttentionContext(query_mask=rows, key_mask=rows)


@pytest.mark.parametrize("options", [{"window": LONG}, {"global_tokens": LONG}], ids=str)
def test_what_holds_every_key_is_softmax(options):
    q, k, v = qkv(LONG, LONG)
    attention = build(**options)
    for context in (None, holes()):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        want = module("softmax", "NS")(q, k, v, context) * valid
        assert error(attention(q, k, v, context) * valid, want) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("count", [0, 2])
def test_equals_the_reference_with_gradients(count):
    q, k, v = qkv(LONG, LONG)
    (g,) = draw(q.shape, seed=3)
    attention = build(global_tokens=count)
    for context in (None, holes()):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


def test_global_tokens_read_all_and_others_what_a_window_with_sinks_does():
    q, k, v = qkv(LONG, LONG)
    found = build()(q, k, v)
    assert error(found[:, :, :2], module("softmax", "NS")(q, k, v)[:, :, :2]) <= 1e-12
    want = module("swa-sink", "NS", sinks=2, window=5)(q, k, v)
    assert error(found[:, :, 2:], want[:, :, 2:]) <= 1e-12
    without = module("local", "NS", window=5)(q, k, v)
    assert error(build(global_tokens=0)(q, k, v), without) <= 1e-12


def test_global_tokens_are_the_first_that_are_there():
    q, k, v = qkv(LONG, LONG)
    context = AttentionContext(key_mask=torch.ones(2, LONG, dtype=torch.bool))
    context.key_mask[:, [0, 2]] = False
    context.query_mask = context.key_mask
    found = build()(q, k, v, context)
    seen = [j for j in range(LONG) if j not in (0, 2)]
    for row in (1, 3):
        weights = (q[:, :, row, None] @ k[:, :, seen].mT * 5**-0.5).softmax(-1)
        assert error(found[:, :, row], (weights @ v[:, :, seen])[:, :, 0]) <= 1e-12
    near = [1, 3, *range(25, 36)]
    weights = (q[:, :, 30, None] @ k[:, :, near].mT * 5**-0.5).softmax(-1)
    assert error(found[:, :, 30], (weights @ v[:, :, near])[:, :, 0]) <= 1e-12


def test_density_counts_what_each_token_reads():
    q, k, _ = qkv(LONG, LONG)
    pairs = sum(
        LONG if i < 2 else len({0, 1, *range(max(0, i - 5), min(LONG, i + 6))}) for i in range(LONG)
    )
    want = torch.full((2, 3), pairs / LONG**2, dtype=torch.float64)
    assert error(build().density(q, k), want) <= 1e-12
