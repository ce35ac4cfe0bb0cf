"""cosFormer: dense weights, the horizon, positions of valid tokens, and decoding."""

import math

import pytest
import torch

from attentions.cosformer import CosFormer
from benchmarks.attentions.plain import cosformer as plain
from cab import AttentionContext
from cab.checks import CHECKS, Case
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.contract.share import share_of


def by_hand(q, k, v, horizon, causal=False):
    """The definition for one sequence: q (Lq, D), k (Lk, D), v (Lk, Dv)."""
    lag = len(k) - len(q) if causal else 0
    out = torch.zeros(len(q), v.shape[-1]).double()
    for i in range(len(q)):
        numerator, denominator = torch.zeros(v.shape[-1]).double(), 0.0
        for j in range(i + lag + 1 if causal else len(k)):
            cosine = math.cos(math.pi / 2 * (i + lag - j) / horizon)
            weight = q[i].clamp(min=0) @ k[j].clamp(min=0) * cosine
            numerator, denominator = numerator + weight * v[j], denominator + weight
        out[i] = numerator / max(denominator, 1e-6)
    return out


@pytest.mark.parametrize(
    ("pattern", "length_q", "length_k", "horizon"),
    [
        ("NS", 9, 9, 0),
        ("NS", 9, 9, 30),
        ("CS", 9, 9, 0),
        ("CS", 4, 9, 12),
        ("NC", 4, 9, 0),
        ("NC", 9, 4, 0),
        ("CC", 9, 4, 0),
        ("CC", 4, 9, 15),
        ("CS", 1, 1, 0),
        ("NS", 1, 1, 0),
    ],
)
def test_equals_the_definition(pattern, length_q, length_k, horizon):
    q, k, v = qkv(length_q, length_k)
    got = module("cosformer", pattern, horizon=horizon)(q, k, v)
    m = horizon or (8192 if pattern.startswith("C") else max(length_q, length_k))
    for b in range(2):
        for h in range(3):
            want = by_hand(q[b, h], k[b, h], v[b, h], m, causal=pattern == "CS")
            assert error(got[b, h], want) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
@pytest.mark.parametrize("length", [1, 64, 65, 200])
@pytest.mark.parametrize("horizon", [0, 250])
def test_equals_the_dense_weights_and_the_straightforward_form(pattern, length, horizon):
    q, k, v = qkv(length if pattern.endswith("S") else 70, length)
    attention = module("cosformer", pattern, horizon=horizon)
    (grad,) = draw(q.shape, seed=1)
    got, got_grads = gradients(attention, (q, k, v), grad)
    for form in (attention.reference, lambda *x: plain.attend(attention, *x)):
        want, want_grads = gradients(form, (q, k, v), grad)
        assert error(got, want) <= 1e-11
        for x, y in zip(got_grads, want_grads, strict=True):
            assert error(x, y) <= 1e-9


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_with_a_far_horizon_it_is_linear_attention_with_relu(pattern):
    q, k, v = qkv(70, 70)
    weights = q.relu() @ k.relu().mT
    weights = weights.tril() if pattern == "CS" else weights
    want = weights @ v / weights.sum(-1, keepdim=True).clamp(min=1e-6)
    near, far = (module("cosformer", pattern, horizon=h)(q, k, v) for h in (100, 10**9))
    assert error(far, want) <= 1e-12
    assert error(near, want) > 1e-3


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("horizon", [7, 100])
def test_a_horizon_keeps_the_contract(pattern, horizon):
    for check in CHECKS.values():
        check(Case(CosFormer, pattern, {"horizon": horizon}, share=share_of(pattern, horizon)))


def test_tokens_beyond_the_horizon_count_as_one_at_it():
    q, k, v = (x.abs() for x in qkv(90, 90))
    attention = module("cosformer", "CS", horizon=20)
    eye = torch.eye(90).double().expand(2, 3, 90, 90)
    weights = attention.reference(q, k, eye)
    assert weights.tril().min() >= 0
    assert error(attention(q, k, v), weights @ v) <= 1e-12
    position = torch.arange(1, 91).clamp(max=20).double()
    cosine = ((position[:, None] - position[None]) * (math.pi / 2 / 20)).cos()
    want = (q @ k.mT * cosine).tril()
    assert error(weights, want / want.sum(-1, keepdim=True)) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
@pytest.mark.parametrize("content", [50.0, torch.inf, torch.nan])
def test_masked_tokens_are_absent_and_the_others_keep_their_positions(pattern, content):
    q, k, v = qkv(20 if pattern.endswith("S") else 11, 20)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[0, :3] = mask[0, 8:15] = False
    mask[1] = False
    query_mask = mask if pattern.endswith("S") else torch.ones(2, 11, dtype=torch.bool)
    if pattern.endswith("C"):
        query_mask[0, 2:4] = False
    hidden = ~mask[:, None, :, None]
    k, v = (x.masked_fill(hidden, content).requires_grad_() for x in (k, v))
    attention = module("cosformer", pattern)
    out = attention(q, k, v, AttentionContext(key_mask=mask, query_mask=query_mask))
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    grads = torch.autograd.grad(out.square().sum(), (k, v))
    assert all(g.isfinite().all() for g in grads)
    keys, queries = mask[0].nonzero()[:, 0], query_mask[0].nonzero()[:, 0]
    places = AttentionContext(query_positions=queries, key_positions=keys)
    alone = attention(q[:1, :, queries], k[:1, :, keys], v[:1, :, keys], places)
    assert error(out[:1, :, queries], alone) <= 1e-12
    assert all(g[0].masked_select(hidden[0]).abs().max() == 0 for g in grads)


def test_the_length_of_each_row_is_that_of_its_valid_tokens():
    q, k, v = qkv(30, 30)
    mask = torch.arange(30) < torch.tensor([[30], [12]])
    attention = module("cosformer", "NS")
    out = attention(q, k, v, AttentionContext(key_mask=mask, query_mask=mask))
    assert error(out[:1], attention(q[:1], k[:1], v[:1])) <= 1e-12
    short = attention(*(x[1:, :, :12] for x in (q, k, v)))
    assert error(out[1:, :, :12], short) <= 1e-12


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_positions_of_the_context_take_the_place_of_counted_ones(pattern):
    q, k, v = qkv(9, 9)
    attention = module("cosformer", pattern, horizon=40)
    place = torch.tensor([0, 1, 4, 5, 9, 10, 11, 20, 27])
    got = attention(q, k, v, AttentionContext(query_positions=place, key_positions=place))
    # Tokens without features fill the gaps.
    spread = [x.new_zeros(2, 3, 28, 5).index_copy(2, place, x) for x in (q, k, v)]
    want = attention(*spread)[:, :, place]
    assert error(got, want) <= 1e-12


@pytest.mark.parametrize("length_q", [1, 3, 69])
def test_fewer_queries_than_keys_are_the_last_ones(length_q):
    q, k, v = qkv(70, 70)
    attention = module("cosformer", "CS", horizon=50)
    whole = attention(q, k, v)
    assert error(attention(q[:, :, -length_q:], k, v), whole[:, :, -length_q:]) <= 1e-12


@pytest.mark.parametrize("horizon", [0, 11])
def test_decoding_after_a_prompt_with_masked_tokens(horizon):
    q, k, v = qkv(30, 30)
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[0, :6] = False
    mask[1, 5:9] = mask[1, 11] = False
    attention = module("cosformer", "CS", horizon=horizon)
    want = attention(q, k, v, AttentionContext(key_mask=mask))
    state = attention.prefill(k[:, :, :12], v[:, :, :12], AttentionContext(key_mask=mask[:, :12]))
    for t in range(12, 30):
        own = slice(t, t + 1)
        row, state = attention.step(q[:, :, own], k[:, :, own], v[:, :, own], state)
        assert error(row, want[:, :, own]) <= 1e-12
    assert state.length == 30


@pytest.mark.parametrize("start", [0, 4])
def test_decoding_over_a_source(start):
    q, k, v = qkv(9, 20)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[0, 13:] = False
    attention = module("cosformer", "CC", horizon=25)
    want = attention(q, k, v, AttentionContext(key_mask=mask))
    state = attention.prefill(k, v, AttentionContext(key_mask=mask))
    for t in range(start, 9):
        # A query whose forerunners were not decoded has to say where it stands.
        place = torch.tensor([t]) if t == start else None
        context = AttentionContext(query_positions=place)
        row, state = attention.step(q[:, :, t : t + 1], None, None, state, context)
        assert error(row, want[:, :, t : t + 1]) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_queries_and_keys_without_features(pattern):
    q, k, v = qkv(70, 70)
    q[0, :, 30] = -1.0
    k[1] = -1.0
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = module("cosformer", pattern)(*leaves)
    assert out[0, :, 30].abs().max() == 0
    assert out[1].abs().max() == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.square().sum(), leaves))


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_bfloat16(pattern):
    q, k, v = qkv(70, 70)
    attention = module("cosformer", pattern)
    got = attention(*(x.bfloat16() for x in (q, k, v)))
    want = attention(*(x.bfloat16().double() for x in (q, k, v)))
    assert got.dtype == torch.bfloat16
    assert error(got, want) <= 4e-3
