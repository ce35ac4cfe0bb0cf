"""Rectified sparse attention: what it equals, and that no query is routed by a later one."""

import pytest
import torch

from attentions.shared.block_sparse import block_sparse_attention
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ("NS", "CS", "NC", "CC")
SETTINGS = [
    {},
    {"global_blocks": 1},
    {"global_blocks": 2, "neighbors": 0},
    {"density": 0.6, "p_remain": 0.0},
    {"density": 0.0, "p_remain": 0.7, "neighbors": 2},
    {"global_blocks": 1 << 10},
]


def build(pattern, **options):
    return module("rectified-spa", pattern, **({"block": 4} | options))


def inputs(pattern, length=43, smooth=True):
    """Keys and queries of which some blocks are alike, so that means say something."""
    q, k, v = qkv(29 if pattern in ("NC", "CC") else length, length)
    if smooth:
        q, k = (x[:, :, ::4].repeat_interleave(4, 2)[:, :, : x.shape[2]] + 0.1 * x for x in (q, k))
    return q, k, v


def holes(pattern, length=43):
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :9] = False
    own = rows if pattern in ("NS", "CS") else rows[:, 3:32]
    return AttentionContext(query_mask=own, key_mask=rows)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, options):
    q, k, v = inputs(pattern)
    (g,) = draw(q.shape, seed=3)
    attention = build(pattern, **options)
    if "global_blocks" not in options:
        assert (attention._route(q, k, AttentionContext()).weights > 0).any()
    for context in (None, holes(pattern)):
        if context is not None:
            g = g * context.query_mask[:, None, :, None]
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g)
        want_out, want = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), g)
        if context is not None:
            valid = context.query_mask[:, None, :, None]
            out, want_out = out * valid, want_out * valid
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_everything_critical_is_softmax(pattern):
    q, k, v = inputs(pattern)
    want = module("softmax", pattern)
    for options in ({"density": 1.0}, {"p_remain": 1.0}, {"global_blocks": 11}):
        attention = build(pattern, **options)
        for context in (None, holes(pattern)):
            valid = 1 if context is None else context.query_mask[:, None, :, None]
            got = attention(q, k, v, context) * valid
            assert error(got, want(q, k, v, context) * valid) <= 1e-12
            assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "NC"])
@pytest.mark.parametrize("options", SETTINGS[:-1], ids=str)
def test_blocks_of_equal_keys_and_queries_are_exact_whatever_is_critical(pattern, options):
    q, k, v = inputs(pattern, smooth=False)
    q, k = (x[:, :, ::4].repeat_interleave(4, 2)[:, :, : x.shape[2]] for x in (q, k))
    attention, want = build(pattern, **options), module("softmax", pattern)
    assert error(attention(q, k, v), want(q, k, v)) <= 1e-12
    assert attention.density(q, k).max() < 1
    context = holes(pattern)
    valid = context.query_mask[:, None, :, None]
    got = attention(q, k, v, context) * valid
    assert error(got, want(q, k, v, context) * valid) <= 1e-12


def test_nothing_is_compensated_among_random_tokens():
    q, k, v = draw(*[(1, 2, 256, 64)] * 3)
    attention = module("rectified-spa", "NS", 64)
    routes = attention._route(q, k, AttentionContext())
    assert not routes.weights.any()
    assert error(attention(q, k, v), block_sparse_attention(q, k, v, routes.lists)) <= 1e-12


def test_density_by_rank_is_the_option():
    q, k, _ = draw(*[(1, 2, 512, 64)] * 3)
    attention = module("rectified-spa", "NS", 64, neighbors=0, block=8, p_remain=0.0)
    # The query's own block is critical in any case.
    assert 0.25 <= attention.density(q, k).mean().item() <= 0.25 + 1 / 64
    cross = module("rectified-spa", "NC", 64, block=8, p_remain=0.0)
    units = cross._route(q, k, AttentionContext()).lists.units
    assert ((units >= 0).sum(-1) == 16).all()


@pytest.mark.parametrize("options", SETTINGS[:3], ids=str)
@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_a_later_query_or_key(pattern, options):
    q, k, v = inputs(pattern)
    attention = build(pattern, **options)
    whole = attention(q, k, v)
    for t in (1, 3, 4, 5, 17, 28):
        later = [x.clone() for x in (q, k, v)]
        later[0][:, :, t:] *= -3
        if pattern == "CS":
            for x in later[1:]:
                x[:, :, t:] *= -3
        assert error(attention(*later)[:, :, :t], whole[:, :, :t]) <= 1e-14
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attention(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_fewer_queries_than_keys_are_refused():
    q, k, v = inputs("CS")
    with pytest.raises(NotImplementedError, match="Lq must be Lk"):
        build("CS")(q[:, :, -3:], k, v)


@pytest.mark.parametrize("name", ["density", "p_remain"])
def test_shares_above_one_are_refused(name):
    with pytest.raises(ValueError, match=name):
        build("NS", **{name: 1.5})


def test_a_mean_counts_as_its_tokens_beside_global_ones():
    # p over means and global keys alike, then b p_j / (b sum p_j + sum p_t).
    q, k, _ = inputs("NC", 32)
    attention = build("NC", global_blocks=2, density=0.0, p_remain=0.0)
    q = q[:, :, :28]
    means_q, means_k = (x.unflatten(2, (-1, 4)).mean(3) for x in (q, k))
    logits = torch.cat([means_q @ means_k[:, :, 2:].mT, means_q @ k[:, :, :8].mT], -1) * 5**-0.5
    p = logits.softmax(-1)
    pooled, single = p[..., :6], p[..., 6:]
    want = 4 * pooled / (4 * pooled.sum(-1, keepdim=True) + single.sum(-1, keepdim=True))
    weights = attention._route(q, k, AttentionContext()).weights[..., 2:]
    assert (weights > 0).any()
    assert error(weights, want.where(weights > 0, 0.0)) <= 1e-12
