"""Positions that the context gives, where a mechanism reads positions."""

import pytest
import torch

import cab
from attentions.shared.positions import at_positions
from cab import Attention, AttentionContext, AttentionSpec, Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.registered import build, call, claims, decodes

OPTIONS = {"cosformer": {"horizon": 50}, "long-short": {"chunk": 8, "causal_window": 9}}
SELF = [
    (name, pattern)
    for name in ("local", "long-short", "s4d", "cosformer", "nystromformer", "lara")
    for pattern in ("NS", "CS")
    if pattern == "NS" or name not in ("nystromformer", "lara")
]
# Positions go through a linear layer, whose product rounds otherwise for two rows than for one.
EMBEDDED = {"mtand"}
PLACES = torch.tensor([0, 2, 3, 7, 8, 9, 10, 21, 22, 23, 24, 25, 26, 30, 31, 32, 40, 41, 42])


@pytest.mark.parametrize(("cls", "pattern"), claims())
def test_places_in_order_change_nothing(cls, pattern):
    attention, inputs = build(cls, pattern), call(pattern)
    want, c = inputs.run(attention), inputs.context
    c.query_positions = torch.arange(inputs.q.shape[-2])
    c.key_positions = torch.arange(inputs.k.shape[-2])
    assert torch.equal(inputs.run(attention), want)
    c.query_positions, c.key_positions = (
        x.expand(2, -1) for x in (c.query_positions, c.key_positions)
    )
    found = inputs.run(attention)
    if cls.info.id in EMBEDDED:
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-14)
    else:
        assert torch.equal(found, want)


@pytest.mark.parametrize(("name", "pattern"), SELF)
def test_tokens_at_places_are_those_among_masked_ones(name, pattern):
    q, k, v = qkv()
    (grad,) = draw(q.shape, seed=3)
    attention = module(name, pattern, **OPTIONS.get(name, {}))
    mask = torch.zeros(2, 43, dtype=torch.bool)
    mask[:, PLACES] = True

    def at_places(*x):
        unused = sum(0 * y[:0].sum() for y in x)  # S4D reads the values alone
        return attention(*x, AttentionContext(key_positions=PLACES)) + unused

    def among_masked(*x):
        spread = [y.new_zeros(2, 3, 43, 5).index_copy(2, PLACES, y) for y in x]
        out = attention(*spread, AttentionContext(query_mask=mask, key_mask=mask))
        return out[:, :, PLACES] + sum(0 * y[:0].sum() for y in x)

    out, found = gradients(at_places, (q, k, v), grad)
    want_out, want = gradients(among_masked, (q, k, v), grad)
    assert error(out, want_out) <= 1e-12
    assert error(out, attention(q, k, v)) > 1e-3
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-12


@pytest.mark.parametrize("name", ["local", "long-short", "s4d", "cosformer"])
@pytest.mark.parametrize("last", [1, 6])
def test_fewer_queries_than_keys_are_at_the_last_places(name, last):
    q, k, v = qkv()
    attention = module(name, "CS", **OPTIONS.get(name, {}))
    context = AttentionContext(key_positions=PLACES)
    whole = attention(q, k, v, context)
    assert error(attention(q[:, :, -last:], k, v, context), whole[:, :, -last:]) <= 1e-12


@pytest.mark.parametrize(("name", "pattern"), SELF)
def test_every_row_has_its_own_places_and_those_of_masked_tokens_do_not_count(name, pattern):
    q, k, v = qkv()
    attention = module(name, pattern, **OPTIONS.get(name, {}))
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, 11:] = False
    places = torch.stack([PLACES, torch.arange(19) + 2]).masked_fill(~mask, 0)
    got = attention(q, k, v, AttentionContext(mask, mask, key_positions=places))
    for row, n in ((0, 19), (1, 11)):
        own = [x[row : row + 1, :, :n] for x in (q, k, v)]
        alone = attention(*own, AttentionContext(key_positions=places[row, :n]))
        assert error(got[row : row + 1, :, :n], alone) <= 1e-12


@pytest.mark.parametrize(("cls", "pattern"), claims(lambda c, p: decodes(c, p) and not p.cross))
def test_decoding_after_a_prompt_with_places(cls, pattern):
    attention, inputs = build(cls, pattern), call(pattern)
    mask = torch.ones(2, 37, dtype=torch.bool)
    mask[0, [0, 4, 5, 12, 22]] = False
    c, places = inputs.context, torch.arange(37)
    c.key_mask, c.key_positions, c.query_positions = mask, places, places
    want = inputs.run(attention)
    prompt = AttentionContext(
        key_mask=mask[:, :23], key_positions=places[:23], key_input=c.key_input[:, :23]
    )
    state = attention.prefill(inputs.k[:, :, :23], inputs.v[:, :, :23], prompt)
    for t in range(23, 37):
        own, place = slice(t, t + 1), torch.tensor([t])
        layer = c.query_input[:, own]
        token = AttentionContext(
            query_input=layer, key_input=layer, query_positions=place, key_positions=place
        )
        given = {"context": token} if cls.step_takes_context() else {}
        new = [x[:, :, own] for x in inputs.tensors()]
        row, state = attention.step(*new, state, **given)
        assert error(row, want[:, :, own]) <= 1e-11


@pytest.mark.parametrize("name", ["local", "long-short", "s4d", "cosformer"])
def test_the_last_queries_of_places_in_order(name):
    q, k, v = qkv()
    attention = module(name, "CS")
    mask = torch.arange(19) < torch.tensor([[19], [15]])
    places = torch.arange(19)
    want = attention(q, k, v, AttentionContext(mask, mask, key_positions=places))
    last = AttentionContext(mask[:, 3:], mask, key_positions=places)
    assert torch.allclose(attention(q[:, :, 3:], k, v, last), want[:, :, 3:], atol=1e-12)


@pytest.mark.parametrize("name", ["local", "long-short", "s4d"])
def test_a_prompt_with_gaps(name):
    q, k, v = qkv()
    attention = module(name, "CS", **OPTIONS.get(name, {}))
    places = torch.cat([PLACES[:12], torch.arange(26, 33)])  # the steps follow one another
    want = attention(q, k, v, AttentionContext(key_positions=places))
    prompt = cab.AttentionContext(key_positions=places[:12])
    state = attention.prefill(k[:, :, :12], v[:, :, :12], prompt)
    for t in range(12, 19):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CC"])
def test_layer_inputs_go_where_their_tokens_go(pattern):
    given = []

    class Reads(Attention):
        @at_positions
        def forward(self, q, k, v, context=None):
            given.append(context)
            return q

    cross = pattern == "CC"
    inputs = call(Pattern.parse(pattern), length_k=3, length_q=3)
    c = inputs.context
    c.key_positions = torch.tensor([0, 2, 5])
    if cross:
        c.query_positions = torch.tensor([1, 0, 3])
    inputs.run(Reads(AttentionSpec(Pattern.parse(pattern), 2, 8)))
    (seen,) = given
    assert seen.key_mask.tolist() == 2 * [[True, False, True, False, False, True]]
    assert torch.equal(seen.key_input[:, c.key_positions], c.key_input)
    assert not seen.key_input[:, [1, 3, 4]].any()
    places = c.query_positions if cross else c.key_positions
    assert torch.equal(seen.query_input[:, places], c.query_input)
