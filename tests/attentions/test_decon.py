"""Deconstructed attention: a gated unit, a running mean of scored keys, second-order sums."""

import pytest
import torch
from torch.nn import functional as F

from attentions.shared.masks import visible
from attentions.shared.prefix_softmax import NO_MASS, prefix_softmax_means
from cab import AttentionContext, attention
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def tokens(pattern, length=19):
    return qkv(13 if pattern.endswith("C") else length, length)


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_a_gated_unit_reads_its_own_token_alone(pattern):
    q, k, v = tokens(pattern)
    unit = module("decon-mlp", pattern)
    out = unit(q, k, v)
    assert error(out, q * q.sigmoid() * v) <= 1e-12
    others = [torch.where(torch.arange(19)[:, None] == 7, x, x + 1) for x in (q, k, v)]
    assert torch.equal(unit(*others)[:, :, 7], out[:, :, 7])
    assert (unit(*others)[:, :, :7] != out[:, :, :7]).all()


def test_a_gated_unit_maps_queries_to_the_width_of_values():
    q, k, _ = qkv()
    (v,) = draw((2, 3, 19, 7), seed=2)
    spec = {"pattern": "causal-self", "heads": 3, "head_dim": 5}
    unit = attention("decon-mlp", **spec, value_dim=7).double()
    assert error(unit(q, k, v), F.silu(q @ unit.width) * v) <= 1e-12
    assert attention("decon-mlp", **spec).width is None


@pytest.mark.parametrize("length", [1, 31, 32, 33, 150, 1100])
def test_key_scores_give_a_running_softmax_mean(length):
    q, k, v = tokens("CS", length)
    scored = module("decon-nonapprox", "CS")
    (grad,) = draw(q.shape, seed=1)

    def cumulative(q, k, v):
        e = (F.silu(q) * k).sum(-1, keepdim=True) / 5**0.5
        weights = (e - e.amax(-2, keepdim=True)).exp()
        return (weights * v).cumsum(-2) / weights.cumsum(-2)

    got, found = gradients(scored, (q, k, v), grad)
    want, slopes = gradients(cumulative, (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-10 for x, y in zip(found, slopes, strict=True))


def test_running_means_of_scores_that_no_exponential_holds():
    (values,) = draw((1, 1, 2100, 3))
    scores = torch.linspace(-3e4, 3e4, 2100).double()[None, None]
    for order in (scores, scores.flip(-1)):
        means, mass = prefix_softmax_means(order, values)
        want = torch.logcumsumexp(order, -1)
        assert error(mass, want) <= 1e-12
        weights = (order[..., None, :] - want[..., None]).tril().exp().tril()
        assert error(means, weights @ values) <= 1e-12


def test_running_means_of_nothing_are_zero():
    values = torch.zeros(2, 70, 3).double()
    scores = torch.full((2, 70), NO_MASS).double()
    scores[1, 66:], values[1, 66:] = 0.0, 1.0
    means, _ = prefix_softmax_means(scores, values)
    assert not means[0].any()
    assert not means[1, :66].any()
    assert error(means[1, 66:], values[1, 66:]) <= 1e-12


def test_a_key_is_scored_by_its_own_query():
    q, k, v = qkv()
    with pytest.raises(NotImplementedError, match="its own token"):
        module("decon-nonapprox", "CS")(q[:, :, 3:], k, v)
    assert not module("decon-nonapprox", "CS").decodes()


def dense(approximate, q, k, v):
    """Second-order sums, written out."""
    mask = visible(approximate.pattern, q.shape[2], k.shape[2], None)
    seen = torch.ones(q.shape[2], k.shape[2]).double()
    seen = seen if mask is None else seen * mask
    if approximate.mode == "based":
        s = q @ k.mT / 5**0.5
        weights = (1 + s + s * s / 2) * seen
        return weights @ v / weights.sum(-1, keepdim=True)
    terms = seen, q @ k.mT * seen, (q**2 / 2**0.5) @ (k**2 / 2**0.5).mT * seen
    return sum(weights @ v / weights.sum(-1, keepdim=True) for weights in terms)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("mode", ["separate", "based"])
@pytest.mark.parametrize("length", [1, 19, 64, 150])
def test_second_order_sums_are_the_dense_form(pattern, mode, length):
    q, k, v = tokens(pattern, length)
    approximate = module("decon-approx", pattern, mode=mode)
    (grad,) = draw(q.shape, seed=1)
    got, found = gradients(approximate, (q, k, v), grad)
    want, slopes = gradients(lambda *x: dense(approximate, *x), (q, k, v), grad)
    # A denominator of any sign magnifies what rounding is left.
    assert error(got, want) <= 1e-9
    assert all(error(x, y) <= 1e-8 for x, y in zip(found, slopes, strict=True))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_denominator_is_the_taylor_polynomial(pattern):
    q, k, v = tokens(pattern, 40)
    want = module("softmax-taylor", pattern, order=2)(q, k, v)
    assert error(module("decon-approx", pattern, mode="based")(q, k, v), want) <= 1e-12


def test_scales_cancel_with_separate_denominators():
    q, k, v = qkv()
    approximate = module("decon-approx", "CS", mode="separate")
    assert error(approximate(3 * q, 0.2 * k, v), approximate(q, k, v)) <= 1e-10


def test_a_denominator_of_zero_is_kept_from_it():
    q, k, v = (torch.zeros(1, 3, 2, 5).double() for _ in range(3))
    q[..., 0], k[..., 0, 0], k[..., 1, 0] = 1.0, 1.0, -1.0
    v[..., 0, :], v[..., 1, :] = 1.0, 2.0
    out = module("decon-approx", "NS", mode="separate")(q, k, v)
    assert error(out, torch.full_like(out, 1.5 - 1e6 + 1.5)) <= 1e-12


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("mode", ["separate", "based"])
def test_the_recurrence_is_the_parallel_form(pattern, mode):
    q, k, v = qkv()
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, [0, 3]] = False
    approximate = module("decon-approx", pattern, mode=mode)
    source = 19 if pattern == "CC" else 5
    want = approximate(q, k, v, AttentionContext(key_mask=mask))
    prompt = AttentionContext(key_mask=mask[:, :source])
    state = approximate.prefill(k[:, :, :source], v[:, :, :source], prompt)
    for t in range(0 if pattern == "CC" else 5, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        row, state = approximate.step(q[:, :, own], *new, state)
        assert error(row, want[:, :, own]) <= 1e-10
    assert sum(x[0].numel() for x in state.tensors.values()) == approximate.state_size(19)


@pytest.mark.parametrize("name", ["decon-mlp", "decon-nonapprox", "decon-approx"])
def test_hybrids_have_softmax_in_even_layers(name):
    q, k, v = qkv()
    spec = {"pattern": "causal-self", "heads": 3, "head_dim": 5, "layers": 2}
    even, odd = (attention(name, **spec, layer_index=i, hybrid=True).double() for i in (0, 1))
    assert error(even(q, k, v), module("softmax", "CS")(q, k, v)) <= 1e-12
    assert error(odd(q, k, v), module(name, "CS")(q, k, v)) <= 1e-12
    assert error(even.reference(q, k, v), even(q, k, v)) <= 1e-12
    if even.decodes():
        state = even.prefill(k[:, :, :18], v[:, :, :18])
        row, state = even.step(*(x[:, :, 18:] for x in (q, k, v)), state)
        assert error(row, even(q, k, v)[:, :, 18:]) <= 1e-12
        assert even.state_size(19) == module("softmax", "CS").state_size(19)


def test_modes_are_named():
    with pytest.raises(OptionError, match="mode"):
        module("decon-approx", "NS", mode="joint")
