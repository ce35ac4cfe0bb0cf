"""Bi-level routing attention: what it equals, what routes, and what has no gradient."""

import pytest
import torch

import cab
from cab import AttentionContext
from cab.errors import UnsupportedPatternError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ("NS", "NC")
SETTINGS = [
    {},
    {"topk": 2, "kernel": 0},
    {"full_dim": True, "kernel": 3},
    {"density": 0.6, "topk": 1},
]


def build(pattern, **options):
    torch.manual_seed(0)
    return module("biformer-bra", pattern, **({"block": 8, "topk": 3} | options))


def inputs(pattern, length=61):
    return qkv(37 if pattern == "NC" else length, length)


def holes(pattern, length=61):
    rows = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    own = rows if pattern == "NS" else rows[:, 5:42]
    return AttentionContext(query_mask=own, key_mask=rows)


def convolved(attention, v):
    """The convolution of the values of a sequence without holes."""
    return attention.lce(v.transpose(2, 3).flatten(1, 2)).unflatten(1, (3, -1)).transpose(2, 3)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, options):
    q, k, v = inputs(pattern)
    (g,) = draw(q.shape, seed=3)
    attention = build(pattern, **options)
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


@pytest.mark.parametrize("options", [{"topk": 8}, {"density": 1.0}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_regions_are_softmax_and_the_convolution(pattern, options):
    q, k, v = inputs(pattern)
    attention, softmax = build(pattern, **options), module("softmax", pattern)
    near = convolved(attention, v) if pattern == "NS" else 0.0
    assert error(attention(q, k, v), softmax(q, k, v) + near) <= 1e-12
    assert error(attention.density(q, k), torch.ones(2, 3).double()) <= 1e-12
    context = holes(pattern)
    valid = context.query_mask[:, None, :, None]
    if pattern == "NS":
        near = convolved(attention, v * context.key_mask[:, None, :, None])
    want = softmax(q, k, v, context) + near
    assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12


def test_regions_are_chosen_by_the_product_of_means_of_all_heads():
    q, k, v = draw(*[(1, 3, 64, 5)] * 3)
    attention = build("NC")
    means_q, means_k = (x.transpose(1, 2).flatten(2).unflatten(1, (8, 8)).mean(2) for x in (q, k))
    best = (means_q @ means_k.mT).topk(3, dim=-1).indices[0]
    sees = torch.zeros(8, 8, dtype=torch.bool).scatter_(1, best, True)
    sees = sees.repeat_interleave(8, 0).repeat_interleave(8, 1)
    scores = (q @ k.mT * 5**-0.5).masked_fill(~sees, float("-inf"))
    assert error(attention(q, k, v), scores.softmax(-1) @ v) <= 1e-12
    assert attention.density(q, k).tolist() == [[3 / 8] * 3]


def test_the_scale_of_the_code_is_of_all_heads():
    q, k, v = inputs("NC")
    scaled = build("NC")(q / 3**0.5, k, v)
    assert error(build("NC", full_dim=True)(q, k, v), scaled) <= 1e-12
    released = cab.attention("biformer-bra", pattern="NC", heads=3, head_dim=5, preset="released")
    assert released.factor == pytest.approx(3**-0.5)


def test_routing_carries_no_gradient():
    q, k, v = inputs("NC")
    attention = build("NC")
    lists = attention._route(q.requires_grad_(), k, AttentionContext())
    assert not lists.units.is_floating_point()
    # Keys of a region that nobody reads have none.
    k = k.detach().requires_grad_()
    read = set(attention._route(q, k, AttentionContext()).units[0].flatten().tolist())
    attention(q, k, v)[0].square().sum().backward()
    for region in range(8):
        some = k.grad[0, :, region * 8 : (region + 1) * 8].abs().max() > 0
        assert bool(some) == (region in read)


def test_a_region_of_padding_is_never_chosen_and_means_are_of_valid_tokens():
    q, k, v = inputs("NC")
    attention = build("NC", topk=1)
    valid = torch.ones(2, 61, dtype=torch.bool)
    valid[:, :8] = False
    valid[:, 9:16] = False
    context = AttentionContext(key_mask=valid)
    assert attention._route(q, k, context).units.min() >= 1
    # Region 1 has one valid key, which is its mean: made the best, all read that alone.
    k = k.clone()
    k[:, :, 8] = 1e3 * torch.einsum("bhid->bhd", q)
    q = q[:, :, :8] * 0 + q.mean(2, keepdim=True)
    out = attention(q, k, v, context)
    assert error(out, v[:, :, 8:9].expand_as(out)) <= 1e-12


def test_no_causal_form_is_claimed():
    for pattern in ("CS", "CC"):
        with pytest.raises(UnsupportedPatternError, match="later ones"):
            build(pattern)


def test_what_does_not_fit_is_refused():
    q, k, v = inputs("NS")
    with pytest.raises(NotImplementedError, match="Lq must be Lk"):
        build("NS")(q[:, :, -3:], k, v)
    with pytest.raises(ValueError, match="odd"):
        build("NS", kernel=4)
