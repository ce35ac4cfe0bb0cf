"""mTAND: attention by times, values that were observed in part, decoding by time."""

import copy

import pytest
import torch

import cab
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def times(length, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return (10 * torch.rand(2, length, generator=generator, dtype=torch.float64)).cumsum(-1)


def stamped(pattern, length_q, length_k):
    keys = times(length_k)
    queries = times(length_q, 4) if pattern.endswith("C") else keys
    return AttentionContext(query_times=queries, key_times=keys)


def embedded(attention, t, projection):
    """phi and its projections, as the formula has them."""
    t = t[..., None] / attention.span
    phi = torch.cat(
        [
            t * attention.trend.weight[0] + attention.trend.bias,
            (t * attention.periodic.weight[:, 0] + attention.periodic.bias).sin(),
        ],
        dim=-1,
    )
    out = phi @ projection.weight.T + projection.bias
    return out.unflatten(-1, (3, -1)).transpose(1, 2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_is_softmax_of_the_embeddings_of_time(pattern):
    q, k, v = qkv(13 if pattern.endswith("C") else 19, 19)
    attention, context = module("mtand", pattern), stamped(pattern, 13, 19)
    own = embedded(attention, context.query_times, attention.query)
    other = embedded(attention, context.key_times, attention.key)
    want = module("softmax", pattern)(own, other, v)
    assert error(attention(q, k, v, context), want) <= 1e-13
    assert error(attention.reference(q, k, v, context), want) <= 1e-13


@pytest.mark.parametrize("pattern", PATTERNS)
def test_content_has_no_part_in_the_weights(pattern):
    q, k, v = qkv()
    attention = module("mtand", pattern)
    want = attention(q, k, v)
    assert torch.equal(attention(q + 1, 2 * k, v), want)
    assert error(attention(q, k, 2 * v + 1), 2 * want + 1) <= 1e-13
    assert error(attention(q, k, v, stamped(pattern, 19, 19)), want) > 1e-3


@pytest.mark.parametrize("pattern", PATTERNS)
def test_times_that_are_places_are_no_times(pattern):
    q, k, v = qkv()
    attention, places = module("mtand", pattern), torch.arange(19.0)
    context = AttentionContext(query_times=places.expand(2, -1), key_times=places.expand(2, -1))
    assert error(attention(q, k, v, context), attention(q, k, v)) <= 1e-14


def test_keys_of_one_time_are_averaged():
    q, k, v = qkv()
    for form in (module("mtand", "NC"), module("mtand", "NC").reference):
        context = AttentionContext(query_times=times(19), key_times=torch.full((2, 19), 3.0))
        want = v.mean(-2, keepdim=True).expand_as(v)
        assert error(form(q, k, v, context), want) <= 1e-14


@pytest.mark.parametrize("pattern", PATTERNS)
def test_channels_that_were_observed_in_part(pattern):
    q, k, v = qkv()
    attention, context = module("mtand", pattern), stamped(pattern, 19, 19)
    context.key_mask = torch.arange(19).expand(2, -1) < 17
    generator = torch.Generator().manual_seed(1)
    observed = torch.rand(2, 3, 19, 5, generator=generator) > 0.5
    observed[..., 0] = True
    observed[1, ..., 4] = False
    (grad,) = draw(q.shape, seed=1)
    got, found = gradients(lambda x: attention(q, k, x, context, observed), (v,), grad)
    want, wanted = gradients(lambda x: attention.reference(q, k, x, context, observed), (v,), grad)
    assert error(got, want) <= 1e-13
    assert error(found[0], wanted[0]) <= 1e-13
    whole = attention(q, k, v, context)
    assert error(got[..., 0], whole[..., 0]) <= 1e-13
    assert got[1, ..., 4].abs().max() == 0
    assert error(attention(q, k, v, context, torch.ones_like(observed)), whole) <= 1e-13
    assert torch.equal(attention(q, k, v.masked_fill(~observed, 1e9), context, observed), got)


def test_a_whole_row_of_observations_serves_every_head():
    q, k, v = qkv()
    attention, observed = module("mtand", "NS"), times(19)[:, None, :, None] % 2 > 1
    wide = observed.expand(2, 3, 19, 5)
    got = attention(q, k, v, None, observed.expand(-1, -1, -1, 5))
    assert torch.equal(got, attention(q, k, v, None, wide))


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("stamps", [True, False])
def test_decoding_by_time(pattern, stamps):
    q, k, v = qkv()
    attention = module("mtand", pattern)
    context = stamped(pattern, 19, 19) if stamps else AttentionContext()
    want = attention(q, k, v, context)
    prompt = 19 if pattern == "CC" else 6
    known = None if not stamps else context.key_times[:, :prompt]
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt], AttentionContext(key_times=known))
    for t in range(0 if pattern == "CC" else prompt, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        token = AttentionContext()
        if stamps:
            token.query_times = context.query_times[:, own]
        row, state = attention.step(q[:, :, own], *new, state, token)
        assert error(row, want[:, :, own]) <= 1e-13
    kept = (state.tensors["k"].numel() + state.tensors["v"].numel()) // 2
    assert kept == attention.state_size(19)


def test_embeddings_are_computed_once_for_all_rows(monkeypatch):
    q, k, v = qkv()
    attention, seen = module("mtand", "NS"), []
    embed = type(attention)._embedded
    monkeypatch.setattr(
        type(attention), "_embedded", lambda self, t, p: seen.append(len(t)) or embed(self, t, p)
    )
    attention(q, k, v)
    attention(q, k, v, AttentionContext(key_positions=torch.arange(19)))
    assert seen == [1, 1, 1, 1]


def test_copies():
    q, k, v = qkv()
    attention, other = module("mtand", "NS"), module("mtand", "NS")
    other.load_state_dict(attention.state_dict())
    assert torch.equal(copy.deepcopy(attention)(q, k, v), other(q, k, v))


def test_options_that_make_no_sense_are_refused():
    for options in ({"embed_time": 1}, {"span": 0.0}):
        with pytest.raises(OptionError):
            cab.attention("mtand", pattern="NS", heads=1, head_dim=4, **options)
