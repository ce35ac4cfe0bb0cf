"""The plain formula, worked on block by block."""

import pytest
import torch

import attentions.softmax_exact as exact
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module

PATTERNS = ["NS", "CS", "NC", "CC"]


def token_major(batch, length, dim, seed):
    """(B, 3, L, D) as a layer's projection gives it."""
    return draw((batch, length, 3, dim), seed=seed)[0].transpose(1, 2)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("batch", [2, 5])  # fewer and more than heads
@pytest.mark.parametrize("cached", [1, 40, 37 * 9, 37 * 37 * 2, 1 << 19])
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_do_not_matter(monkeypatch, pattern, batch, cached, masked):
    monkeypatch.setattr(exact, "_CACHED", cached)
    attention, length_q = module("softmax-exact", pattern), 37 if pattern.endswith("S") else 11
    q, k, v = (token_major(batch, n, 5, i) for i, n in enumerate((length_q, 37, 37)))
    mask = torch.ones(batch, 37, dtype=torch.bool)
    mask[0, :4], mask[1], mask[-1, 9:30] = False, False, False
    context = AttentionContext(key_mask=mask) if masked else None
    (g,) = draw(q.shape, seed=5)
    got = gradients(lambda *x: attention(*x, context), (q, k, v), g)
    want = gradients(lambda *x: attention.reference(*x, context), (q, k, v), g)
    assert error(got[0], want[0]) <= 1e-12
    assert all(error(a, b) <= 1e-12 for a, b in zip(got[1], want[1], strict=True))


@pytest.mark.parametrize("content", [float("nan"), float("inf"), 1e200])
def test_a_later_key_may_hold_anything(content):
    attention = module("softmax-exact", "CS")
    q, k, v = (token_major(2, 20, 5, i) for i in range(3))
    want = attention(q, k, v)[:, :, :12]
    k[:, :, 12:], q[:, :, 11] = content, q[:, :, 11] * 1e200
    got = attention(q, k, v)[:, :, :11]
    assert torch.equal(got, want[:, :, :11])


def test_gradients_in_a_short_dtype_are_summed_at_once(monkeypatch):
    monkeypatch.setattr(exact, "_CACHED", 64)  # a block for each row, in a longer dtype
    attention = module("softmax-exact", "NS")
    q, k, v, g = (token_major(1, 512, 5, i) for i in range(4))
    want = gradients(attention, (q, k, v), g)[1]
    short = [x.bfloat16() for x in (q, k, v)]
    got = gradients(attention.bfloat16(), short, g)[1]
    assert all(error(a, b) <= 0.01 for a, b in zip(got, want, strict=True))


def test_gradients_of_some_inputs_can_be_differentiated_again():
    attention = module("softmax-exact", "CS")
    q, k, v = (token_major(1, 6, 2, i) for i in range(3))
    k.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: attention(q, x, v), (k,))
