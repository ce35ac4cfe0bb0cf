"""BigBird: which blocks are read, where that is softmax, and that the draw is fixed and spread."""

import pytest
import torch

import cab
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

LONG = 90


def build(**options):
    return module("bigbird", "NS", **({"block": 6, "random": 2} | options))


def holes():
    rows = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    rows[0, -3:] = False
    return AttentionContext(query_mask=rows, key_mask=rows)


@pytest.mark.parametrize("options", [{"neighbours": 15}, {"ends": 15}, {"random": 15}], ids=str)
def test_as_many_blocks_as_there_are_is_softmax(options):
    q, k, v = qkv(LONG, LONG)
    attention = build(**options)
    for context in (None, holes()):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        want = module("softmax", "NS")(q, k, v, context) * valid
        assert error(attention(q, k, v, context) * valid, want) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("options", [{}, {"ends": 0, "random": 0}, {"neighbours": 0}], ids=str)
def test_equals_the_reference_with_gradients(options):
    q, k, v = qkv(LONG, LONG)
    (g,) = draw(q.shape, seed=3)
    attention = build(**options)
    for context in (None, holes()):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


def read_blocks(attention, blocks):
    """(H, blocks, blocks) bool, from the derivative of outputs by values."""
    heads, size = attention.spec.heads, attention.block
    q = k = torch.zeros(1, heads, blocks * size, attention.spec.head_dim).double()
    v = torch.eye(blocks * size).double().expand(1, heads, -1, -1)
    weights = attention(q, k, v)[0]
    return weights[:, ::size, ::size] > 0


def test_neighbours_ends_and_as_many_others_as_are_drawn():
    read = read_blocks(build(), 15)
    number = torch.arange(15)
    near = (number[:, None] - number).abs() <= 1
    ends = (number == 0) | (number == 14)
    kept = near | ends | ends[:, None]
    assert read[:, kept].all()
    others = (read & ~kept).sum(-1)
    assert (others[:, 1:-1] == 2).all()
    assert (others[:, [0, -1]] == 0).all()


def test_the_draw_is_fixed_and_of_each_head_and_layer():
    attention, again = build(), build()
    first = attention._drawn(40, torch.device("cpu"))
    assert torch.equal(first, again._drawn(40, torch.device("cpu")))
    assert torch.equal(first[:, :9, :9], attention._drawn(9, torch.device("cpu")))
    later = cab.attention("bigbird", pattern="NS", heads=3, head_dim=5, layer_index=1, layers=2)
    assert (later._drawn(40, torch.device("cpu")) != first).double().mean() > 0.99
    assert (first[0] != first[1]).double().mean() > 0.99


def test_blocks_are_drawn_about_equally_often():
    attention = cab.attention("bigbird", pattern="NS", heads=12, head_dim=5)
    order = attention._drawn(100, torch.device("cpu")).argsort(-1, descending=True)[..., :3]
    counts = order.flatten().bincount(minlength=100).double()
    assert counts.sum() == 3600
    # 36 on average, with a standard deviation of 6 for independent draws.
    assert counts.min() >= 12
    assert counts.max() <= 60
    assert counts.std() <= 9


def test_fewer_queries_than_keys_are_refused():
    q, k, v = qkv(LONG, LONG)
    with pytest.raises(NotImplementedError, match="Lq must be Lk"):
        build()(q[:, :, -3:], k, v)
