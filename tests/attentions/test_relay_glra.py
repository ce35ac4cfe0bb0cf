"""Relay attention: blocks, one unit, units in any order, what comes through relays, decoding."""

import copy

import pytest
import torch

import cab
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_without_relays_it_is_attention_within_blocks(pattern):
    q, k, v = qkv()
    attention, softmax = module("relay-glra", pattern, unit=6, relays=0), module("softmax", pattern)
    blocks = [softmax(*(x[:, :, i : i + 6] for x in (q, k, v))) for i in range(0, 19, 6)]
    assert error(attention(q, k, v), torch.cat(blocks, dim=2)) <= 1e-13
    whole = module("relay-glra", pattern, unit=64, relays=0)
    assert error(whole(q, k, v), softmax(q, k, v)) <= 1e-13


def test_relays_that_no_query_looks_at_are_not_there():
    q, k, v = (x.abs() for x in qkv())
    attention = module("relay-glra", "NS", unit=64)
    with torch.no_grad():
        attention.relay_k.fill_(-1e3)  # its own relay keys: weight 1, so that κ is far from q
        attention.relay_q.fill_(-1.0)
    assert error(attention(q, k, v), module("softmax", "NS")(q, k, v)) <= 1e-13


def test_the_three_steps_as_written():
    """Two units of four tokens, one relay, no codes: the formula by hand, for one head."""
    q, k, v = (x[:1, :1] for x in qkv(8, 8))
    attention = cab.attention(
        "relay-glra", pattern="NS", heads=1, head_dim=5, unit=4, relays=1, rope=False
    ).double()
    relay_q, relay_k, relay_v = (x[0] for x in attention.parameters())
    root, kappa, z = 5**0.5, [], []
    for unit in (slice(0, 4), slice(4, 8)):
        keys = torch.cat([relay_k, k[0, 0, unit]])
        a = (relay_q @ keys.T / root).softmax(-1)
        kappa.append(a @ keys)
        z.append(a @ torch.cat([relay_v, v[0, 0, unit]]))
    kappa, z = torch.cat(kappa), torch.cat(z)
    g = (kappa @ kappa.T / root).softmax(-1) @ z
    want = []
    for u, unit in enumerate((slice(0, 4), slice(4, 8))):
        keys = torch.cat([k[0, 0, unit], kappa[u, None]])
        values = torch.cat([v[0, 0, unit], g[u, None]])
        want.append((q[0, 0, unit] @ keys.T / root).softmax(-1) @ values)
    assert error(attention(q, k, v)[0, 0], torch.cat(want)) <= 1e-13


def test_units_in_another_order_give_outputs_in_that_order():
    q, k, v = qkv(24, 24)
    order = torch.arange(24).view(4, 6)[[2, 0, 3, 1]].flatten()
    moved = [x[:, :, order] for x in (q, k, v)]
    plain = module("relay-glra", "NS", unit=6, rope=False)
    assert error(plain(*moved), plain(q, k, v)[:, :, order]) <= 1e-13
    turned = module("relay-glra", "NS", unit=6, rope=True)
    assert error(turned(*moved), turned(q, k, v)[:, :, order]) > 1e-4


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [1, 6, 7, 19])
@pytest.mark.parametrize("relays", [1, 3])
def test_equals_the_reference_with_gradients(pattern, length, relays):
    q, k, v = qkv(13 if pattern.endswith("C") else length, length)
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.5
    mask[1, :12] = False  # whole units
    attention = module("relay-glra", pattern, unit=6, relays=relays)
    (grad,) = draw(q.shape, seed=1)
    leaves = [*attention.parameters()]
    for context in (None, AttentionContext(key_mask=mask)):
        results = []
        for form in (attention, attention.reference):
            out, found = gradients(lambda *x, f=form, c=context: f(*x, c), (q, k, v), grad)
            loss = (form(q, k, v, context) * grad).sum()
            of_parameters = torch.autograd.grad(
                loss, leaves, allow_unused=True, materialize_grads=True
            )
            results.append([out, *found, *of_parameters])
        for x, y in zip(*results, strict=True):
            assert error(x, y) <= 1e-12


def test_what_is_far_away_comes_through_the_relays():
    q, k, v = qkv(24, 24)
    far = v.clone()
    far[:, :, 0] += 1.0
    for relays, changes in ((0, False), (3, True)):
        for pattern in ("NS", "CS"):
            attention = module("relay-glra", pattern, unit=6, relays=relays)
            out, other = attention(q, k, v), attention(q, k, far)
            assert torch.equal(out[:, :, 6:], other[:, :, 6:]) is not changes
    # Causally from the unit after on.
    assert (out - other)[:, :, 6:].abs().amin(-1).amin() > 0


@pytest.mark.parametrize("prompt", [0, 5, 6, 20])
@pytest.mark.parametrize("relays", [0, 2])
def test_decoding_across_units(prompt, relays):
    q, k, v = qkv(30, 30)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[0, :prompt] = False
    attention = module("relay-glra", "CS", unit=6, relays=relays)
    want = attention(q, k, v, AttentionContext(key_mask=mask, query_mask=mask))
    known = AttentionContext(key_mask=mask[:, :prompt])
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt], known)
    for t in range(prompt, 29):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-13
    names = ("k", "v", "relay_k", "relay_v", "before_k", "before_g")
    assert sum(state.tensors[n].numel() for n in names) == 2 * attention.state_size(29)


def test_decoding_over_a_unit_without_tokens():
    q, k, v = qkv(20, 20)
    places = torch.cat([torch.arange(9), torch.arange(30, 41)])
    attention = module("relay-glra", "CS", unit=6)
    want = attention(q, k, v, AttentionContext(key_positions=places))
    state = attention.prefill(k[:, :, :4], v[:, :, :4])
    for t in range(4, 20):
        token = AttentionContext(key_positions=places[t : t + 1])
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state, token)
        assert error(row, want[:, :, t : t + 1]) <= 1e-13


def test_decoding_with_a_source():
    q, k, v = qkv(7, 19)
    attention = module("relay-glra", "CC", unit=6)
    want, state = attention(q, k, v), attention.prefill(k, v)
    for t in range(7):
        row, state = attention.step(q[:, :, t : t + 1], None, None, state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-13
    assert state.tensors["k"].numel() * 2 == 2 * attention.state_size(19)


def test_copies():
    q, k, v = qkv()
    attention, other = module("relay-glra", "NS", unit=6), module("relay-glra", "NS", unit=6)
    other.load_state_dict(attention.state_dict())
    assert torch.equal(copy.deepcopy(attention)(q, k, v), other(q, k, v))


def test_options_that_make_no_sense_are_refused():
    for options in ({"unit": 0}, {"relays": -1}):
        with pytest.raises(OptionError):
            cab.attention("relay-glra", pattern="NS", heads=1, head_dim=4, **options)
    with pytest.raises(ValueError, match="at least one"):
        module("relay-glra", "NC", relays=0)
