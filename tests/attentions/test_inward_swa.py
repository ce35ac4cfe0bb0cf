"""Inward sliding windows on sequences and grids."""

import math

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

GRIDS = [((9, 11), 2, 3), ((4, 5), 1, 7), ((3, 6, 7), 2, 1), ((13, 3), 5, 0), ((1, 8, 9), 3, 3)]


def build(height, width, **options):
    return module("inward-swa", "NS", radius_height=height, radius_width=width, **options)


def reads(attention, length, context=None):
    """(L, L) bool of row 0, which keys have a weight, found by values that name their key."""
    q, k, _ = qkv(length, length)
    names = torch.eye(length).double().expand(2, 3, -1, -1)
    return attention(q, k, names, context)[0, 0] > 0


def window(place, size, radius):
    """Start and end along one side, by the sheet's numbers."""
    if size <= 2 * radius + 1:
        return range(size)
    start = min(max(place - radius, 0), size - 2 * radius - 1)
    return range(start, start + 2 * radius + 1)


def rule(grid, height, width):
    frames, rows, columns = (1, *grid) if len(grid) == 2 else grid
    sees = torch.zeros(frames, rows, columns, frames, rows, columns, dtype=torch.bool)
    for y in range(rows):
        for x in range(columns):
            for other in window(y, rows, height):
                for place in window(x, columns, width):
                    sees[:, y, x, :, other, place] = True
    return sees.view(math.prod(grid), -1)


@pytest.mark.parametrize(("grid", "height", "width"), GRIDS)
def test_reads_the_window_of_each_frame(grid, height, width):
    attention, length = build(height, width), math.prod(grid)
    context = AttentionContext(query_grid=grid)
    want = rule(grid, height, width)
    assert torch.equal(reads(attention, length, context), want)
    q, k, _ = qkv(length, length)
    assert error(attention.density(q, k, context), (want.double().mean()).expand(2, 3)) <= 1e-12


@pytest.mark.parametrize(("grid", "height", "width"), GRIDS)
def test_equals_the_reference_with_gradients(grid, height, width):
    length = math.prod(grid)
    q, k, v = qkv(length, length)
    (g,) = draw(q.shape, seed=3)
    attention = build(height, width, train_tokens=7)
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[1] = False
    for own in (None, mask):
        context = AttentionContext(query_mask=own, key_mask=own, query_grid=grid)
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g)
        want_out, want = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), g)
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12
        sees = rule(grid, height, width)
        if own is not None:
            sees = sees & own[:1, :, None] & own[:1, None]
            share = attention.density(q, k, context)
            assert error(share[:1], (sees.sum() / own[0].sum().double() ** 2).expand(1, 3)) < 1e-12
            assert share[1].isnan().all()


def test_every_query_sees_as_many_places_of_each_frame():
    context = AttentionContext(query_grid=(3, 9, 11))
    counts = reads(build(2, 3), 297, context).sum(-1)
    assert (counts == 3 * 5 * 7).all()


@pytest.mark.parametrize("grid", [None, (29,), (1, 29)])
def test_on_a_sequence_it_is_neighbourhood_attention_of_an_odd_window(grid):
    q, k, v = qkv(29, 29)
    mask = torch.arange(29) < torch.tensor([[17], [29]])
    if grid and len(grid) == 2:  # padding keeps its place on a grid
        mask = torch.ones_like(mask)
    want = module("neighborhood", "NS", window=9)(q, k, v, AttentionContext(mask, mask))
    attention = build(0, 4, radius=4)
    got = attention(q, k, v, AttentionContext(mask, mask, query_grid=grid))
    valid = mask[:, None, :, None]
    assert error(got * valid, want * valid) <= 1e-12


@pytest.mark.parametrize("grid", [None, (5, 6)])
@pytest.mark.parametrize("radius", [15, 1 << 20])
def test_a_window_over_everything_is_softmax(grid, radius):
    q, k, v = qkv(30, 30)
    context = AttentionContext(query_grid=grid)
    attention = build(radius, radius, radius=radius)
    assert error(attention(q, k, v, context), module("softmax", "NS")(q, k, v)) <= 1e-12
    assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


def test_the_factor_of_the_logits():
    q, k, v = qkv(30, 30)
    factor = math.sqrt(math.log(30) / math.log(12))
    want = build(2, 2, radius=4)(factor * q, k, v)
    assert error(build(2, 2, radius=4, train_tokens=12)(q, k, v), want) <= 1e-12
    context = AttentionContext(query_grid=(2, 3, 5))
    factor = math.sqrt(math.log(15) / math.log(12))
    want = build(1, 1)(factor * q, k, v, context)
    assert error(build(1, 1, train_tokens=12)(q, k, v, context), want) <= 1e-12


@pytest.mark.parametrize("grid", [(5, 5), (1, 1, 1, 30)])
def test_a_grid_that_does_not_hold_the_tokens_is_refused(grid):
    with pytest.raises(ValueError, match="does not hold 30 tokens"):
        build(1, 1)(*qkv(30, 30), AttentionContext(query_grid=grid))


def test_one_training_token_is_refused():
    with pytest.raises(ValueError, match="train_tokens"):
        build(1, 1, train_tokens=1)
