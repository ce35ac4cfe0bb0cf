"""PAROAttention: what it equals, and that heads find the order in which their map is in blocks."""

import itertools

import pytest
import torch

from attentions.shared.fake_quantized import rounded, rounded_in_groups
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

GRIDS = [None, (45,), (5, 9), (3, 3, 5), (1, 45)]


def build(**options):
    return module("paro", "NS", **({"block": 8, "columns": 5} | options))


def holes(length=45):
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :9] = False
    rows[0, 38:] = False
    return rows


@pytest.mark.parametrize(
    "options",
    [{}, {"samples": 1, "density": 0.1}, {"reorder": False}, {"quantize": "int4"}],
    ids=str,
)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_the_reference_with_gradients(grid, options):
    q, k, v = qkv(45, 45)
    (g,) = draw(q.shape, seed=3)
    attention = build(**options)
    for mask in (None, holes()):
        context = AttentionContext(query_mask=mask, key_mask=mask, query_grid=grid)
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g)
        want_out, want = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), g)
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_all_blocks_are_softmax_in_any_order(grid):
    q, k, v = qkv(45, 45)
    attention, want = build(density=1.0), module("softmax", "NS")
    for mask in (None, holes()):
        context = AttentionContext(query_mask=mask, key_mask=mask, query_grid=grid)
        valid = 1 if mask is None else mask[:, None, :, None]
        got = attention(q, k, v, context) * valid
        assert error(got, want(q, k, v, context) * valid) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("grid", [(4, 6), (2, 3, 4)])
def test_orders_are_those_of_the_axes_and_none_loses_a_token(grid):
    orders = build()._orders(grid, 24, torch.tensor([24, 24]))
    want = [torch.arange(24).view(grid).permute(a).flatten()
            for a in itertools.permutations(range(len(grid)))]  # fmt: skip
    assert len(orders) == len(want)
    for order, tokens in zip(orders, want, strict=True):
        assert torch.equal(order, tokens.expand(2, -1))
        assert torch.equal(order.sort(-1).values[0], torch.arange(24))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_head_takes_the_order_in_which_its_map_is_in_blocks(axis):
    # Tokens of a row, or of a column, of an 8 x 8 grid attend to each other alone.
    group = torch.arange(64).view(8, 8)
    group = (group // 8 if axis == 0 else group % 8).flatten()
    q = 20 * torch.nn.functional.one_hot(group, 8).double().expand(1, 3, -1, -1)
    v = draw((1, 3, 64, 8))[0]
    context = AttentionContext(query_grid=(8, 8))
    attention = module("paro", "NS", 8, block=8, density=0.125)
    order, _ = attention._route(q, q, context)
    laid = torch.arange(64).view(8, 8)
    want = (laid if axis == 0 else laid.T).flatten()
    assert torch.equal(order, want.expand(1, 3, -1))
    # Nothing of weight is left out of the eighth of the pairs that is read.
    assert error(attention.density(q, q, context), torch.full((1, 3), 0.125).double()) <= 1e-12
    softmax = module("softmax", "NS", 8)(q, q, v)
    assert error(attention(q, q, v, context), softmax) <= 1e-12
    fixed = module("paro", "NS", 8, block=8, density=0.125, reorder=False)
    assert (error(fixed(q, q, v, context), softmax) <= 1e-12) == (axis == 0)


def test_padding_behind_a_sequence_moves_nothing():
    q, k, v = qkv(45, 45)
    attention = build()
    mask = torch.arange(45) < torch.tensor([[29], [45]])
    got = attention(q, k, v, AttentionContext(query_mask=mask, key_mask=mask))
    alone = attention(*(x[:1, :, :29] for x in (q, k, v)))
    assert error(got[:1, :, :29], alone) <= 1e-12


def test_a_last_block_that_is_not_full_is_always_read():
    q, k, _ = qkv(45, 45)
    for density, other in ((0.0, 0), (0.2, 5)):
        _, lists = build(density=density)._route(q, k, AttentionContext())
        counts = (lists.units >= 0).sum((1, 2, 3))
        # Six blocks: the diagonal, the last row and column, and what has the most mass.
        assert (counts >= 6 + 2 * 5).all()
        assert (counts <= 6 + 2 * 5 + other + 3).all()


@pytest.mark.parametrize("grid", [(5, 5), (3, 3, 5, 1)])
def test_a_grid_that_does_not_hold_the_tokens_is_refused(grid):
    with pytest.raises(ValueError, match="does not hold 45 tokens"):
        build()(*qkv(45, 45), AttentionContext(query_grid=grid))


def test_a_density_above_one_is_refused():
    with pytest.raises(ValueError, match="density"):
        build(density=1.5)


def test_what_rounding_costs():
    """INT8 moves normal numbers by less than one per cent; what it moves in maps without a pattern,
    whose outputs nearly cancel, is a few, and INT4 moves them by a fifth and more.
    """
    q, k, v = draw(*3 * [(1, 2, 256, 64)])
    for moved, x in ((rounded_in_groups(q, 127, 32), q), (rounded(v, 127, (-2,)), v)):
        assert 0 < (moved - x).norm() / x.norm() < 0.01
    want = module("paro", "NS", density=1.0)(q, k, v)
    found = {}
    for bits in ("int8", "int4"):
        got = module("paro", "NS", density=1.0, quantize=bits)(q, k, v)
        found[bits] = ((got - want).norm() / want.norm()).item()
    assert found["int8"] < 0.03
    assert found["int4"] > 5 * found["int8"]


def test_rounding_leaves_steps_of_the_maximum_and_the_gradient():
    (x,) = draw((2, 3, 8, 5))
    x.requires_grad_()
    out = rounded_in_groups(x, 7, 3)
    for group in out.detach().split(3, dim=2):
        step = group.abs().amax((2, 3), keepdim=True) / 7
        steps = group / step
        assert error(steps, steps.round()) <= 1e-12
        assert steps.abs().max() <= 7 + 1e-9
    (g,) = draw(x.shape, seed=3)
    assert torch.equal(torch.autograd.grad(out, x, g)[0], g)
    assert not rounded(torch.zeros(2, 2), 7, (0, 1)).any()
