"""Mixture of block attention: which blocks a query reads, and where that is softmax."""

import math

import pytest
import torch

import cab
from attentions.shared.block_choice import best_blocks, block_means
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG, BLOCK = 90, 8


def inputs(pattern):
    return qkv(37 if pattern.endswith("C") else LONG, LONG)


def build(pattern, **options):
    return module("moba", pattern, **({"block": BLOCK, "topk": 3} | options))


def holes(pattern):
    rows = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    rows[0, -3:] = False
    own = rows[:, 5:42] if pattern.endswith("C") else rows
    return AttentionContext(query_mask=own, key_mask=rows)


@pytest.mark.parametrize("options", [{"topk": -(-LONG // BLOCK)}, {"block": LONG}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_many_blocks_as_there_are_is_softmax(pattern, options):
    q, k, v = inputs(pattern)
    attention = build(pattern, **options)
    for context in (None, holes(pattern)):
        want = module("softmax", pattern)(q, k, v, context)
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("topk", [1, 3])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, topk):
    q, k, v = inputs(pattern)
    (g,) = draw(q.shape, seed=3)
    attention = build(pattern, topk=topk)
    for context in (None, holes(pattern)):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_query_by_hand(pattern):
    q, k, v = inputs(pattern)
    found = build(pattern)(q, k, v)
    batch, head, row = 1, 2, 29
    own = row // BLOCK
    blocks = [range(s, min(s + BLOCK, LONG)) for s in range(0, LONG, BLOCK)]
    means = {b: q[batch, head, row] @ k[batch, head, list(own)].mean(0)
             for b, own in enumerate(blocks)}  # fmt: skip
    ranked = sorted(means, key=lambda b: -means[b])
    if pattern == "CS":
        chosen = [*[b for b in ranked if b < own][:2], own]
    elif pattern == "NS":
        chosen = [*[b for b in ranked if b != own][:2], own]
    else:
        chosen = ranked[:3]
    seen = [j for b in chosen for j in blocks[b] if pattern != "CS" or j <= row]
    weights = (k[batch, head, seen] @ q[batch, head, row] * 5**-0.5).softmax(-1)
    assert error(found[batch, head, row], weights @ v[batch, head, seen]) <= 1e-12


def test_a_mean_is_of_the_keys_that_are_there():
    _, k, _ = inputs("CS")
    mask = torch.ones(2, LONG, dtype=torch.bool)
    mask[1, [16, 17, 21]] = False
    mask[1, 32:40] = False
    means, filled = block_means(k, mask, BLOCK)
    assert error(means[1, :, 2], k[1][:, [18, 19, 20, 22, 23]].mean(1)) <= 1e-12
    assert error(means[0, :, -1], k[0, :, 88:].mean(1)) <= 1e-12
    assert not filled[1, 4]
    assert filled.sum() == 2 * 12 - 1


def test_of_equal_blocks_the_first_is_taken_and_what_lacks_is_said():
    (q,) = draw((1, 1, 4, 5))
    means = torch.zeros(1, 1, 3, 5).double()
    chosen = best_blocks(q, means, lambda rows: torch.tensor([False, True, True]), 3)
    assert chosen[0, 0].tolist() == [[1, 2, -1]] * 4


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_what_is_later(pattern):
    q, k, v = inputs(pattern)
    attention = build(pattern)
    whole = attention(q, k, v)
    for t in (1, 7, 8, 9, 17, 24, 36):
        later = [x.clone() for x in (q, k, v)]
        later[0][:, :, t:] *= -3
        if pattern == "CS":
            for x in later[1:]:
                x[:, :, t:] = x[:, :, t:].flip(-1) * -3
        assert error(attention(*later)[:, :, :t], whole[:, :, :t]) <= 1e-14
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attention(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_density_and_stated_operations_agree():
    q, k, _ = draw(*[(1, 2, 64, 16)] * 3)
    attention = cab.attention("moba", pattern="CS", heads=2, head_dim=16, block=8, topk=3)
    pairs = sum(min(t // 8, 2) * 8 + t % 8 + 1 for t in range(64))
    want = torch.full((1, 2), pairs / (64 * 65 / 2), dtype=torch.float64)
    assert error(attention.density(q, k), want) <= 1e-12
    routed = sum(t // 8 for t in range(64)) * 16
    shape = cab.AttentionShape(1, 2, 64, 64, 16, 16)
    assert math.isclose(attention.flops(shape), 4 * (pairs * 32 + routed))
