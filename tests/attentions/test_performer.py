"""Performer: estimated weights, stabilisation for keys of any norm, masks, redrawn directions."""

import pytest
import torch

import cab
from attentions.performer import Performer
from attentions.shared.features import log_positive_features, positive_features
from attentions.shared.prefix_sums import linear_attention
from benchmarks.attentions.plain import performer as plain
from cab import AttentionContext
from cab.checks import CHECKS, Case
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.contract.share import share_of


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def log_weights(q, k, directions, causal, mask=None):
    """Logarithms of the dense weights, computed without leaving the logarithms."""
    logs = log_positive_features(q, directions)[:, :, :, None]
    logs = (logs + log_positive_features(k, directions)[:, :, None]).logsumexp(-1)
    if causal:
        later = torch.ones(logs.shape[-2:], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
        logs = logs.masked_fill(later, -torch.inf)
    return logs if mask is None else logs.masked_fill(~mask[:, None, None], -torch.inf)


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
@pytest.mark.parametrize("length", [1, 4, 64, 65, 100])
@pytest.mark.parametrize("features", [1, 7, 64])
def test_equals_the_dense_weights_and_the_straightforward_form(pattern, length, features):
    q, k, v = qkv(length if pattern.endswith("S") else 13, length)
    attention = module("performer", pattern, features=features)
    (grad,) = draw(q.shape, seed=1)

    def dense(q, k, v):
        return log_weights(q, k, attention.directions, pattern == "CS").softmax(-1) @ v

    def straightforward(q, k, v):
        return plain.attend(attention, q, k, v)

    got, got_grads = gradients(attention, (q, k, v), grad)
    # The straightforward form stabilises by the largest logit of all, and loses digits.
    for form, bar in ((dense, 1e-12), (attention.reference, 1e-12), (straightforward, 1e-9)):
        want, want_grads = gradients(form, (q, k, v), grad)
        assert error(got, want) <= bar
        for x, y in zip(got_grads, want_grads, strict=True):
            assert error(x, y) <= bar


@pytest.mark.parametrize("length_q", [1, 3, 69])
def test_fewer_queries_than_keys_are_the_last_ones(length_q):
    q, k, v = qkv(70, 70)
    attention = module("performer", "CS")
    whole = attention(q, k, v)
    assert error(attention(q[:, :, -length_q:], k, v), whole[:, :, -length_q:]) <= 1e-12


@pytest.mark.parametrize("causal", [True, False])
def test_the_stabiliser_cancels(causal):
    q, k, v = qkv(70, 70)
    directions = module("performer", "CS").directions
    fq, fk = positive_features(q, k, directions)
    want = linear_attention(fq, fk, v, causal=causal)[0]
    (shift,) = draw((64,), seed=4)
    for factor_q, factor_k in [(1.0, 7.0), (0.2, 1.0), (shift.exp(), (-shift).exp())]:
        got = linear_attention(fq * factor_q, fk * factor_k, v, causal=causal)[0]
        assert error(got, want) <= 1e-13


def test_the_error_falls_with_the_root_of_the_number_of_features():
    q, k, v = (0.3 * x for x in qkv(40, 40, dim=8))
    softmax = module("softmax", "NS", dim=8)(q, k, v)

    def mean_error(features):
        attentions = [module("performer", "NS", dim=8, features=features) for _ in range(8)]
        return torch.stack([(a(q, k, v) - softmax).norm() for a in attentions]).mean().item()

    few, some, many = mean_error(16), mean_error(128), mean_error(1024)
    assert 2.0 <= few / some <= 4.0  # 8^(1/2) = 2.8
    assert 2.0 <= some / many <= 4.0
    assert many / softmax.norm().item() <= 0.04


PATHS = [  # factor of the first keys, dtype, dtypes tried, and whether tokens are taken one by one
    (1.0, torch.float32, [torch.float32], False),
    (12.0, torch.float32, [torch.float32, torch.float64], False),
    (12.0, torch.float64, [torch.float64], False),
    (60.0, torch.float64, [torch.float64], True),
    (60.0, torch.float32, [torch.float32, torch.float64], True),
]


@pytest.mark.parametrize(("size", "dtype", "tried", "one_by_one"), PATHS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length_q", [24, 18])
def test_first_keys_far_beyond_the_others(
    monkeypatch, size, dtype, tried, one_by_one, masked, length_q
):
    q, k, v = draw((2, 3, 24, 16), (2, 3, 24, 16), (2, 3, 24, 5))
    q = q[:, :, -length_q:]
    k[:, :, :9] *= size
    mask = torch.ones(2, 24, dtype=torch.bool)
    if masked:
        mask[0, :3] = mask[1, 8:11] = False
    attention = module("performer", "CS", dim=16, features=8)
    seen, attend, single = [], Performer._attend, Performer._token_by_token
    monkeypatch.setattr(
        Performer, "_attend", lambda self, *x, **y: seen.append(x[4]) or attend(self, *x, **y)
    )
    monkeypatch.setattr(
        Performer, "_token_by_token", lambda self, *x: seen.append(None) or single(self, *x)
    )
    directions = attention.directions.double()
    logs = log_weights(q, k, directions, True, mask)
    weights = logs.softmax(-1).nan_to_num()
    q, k, v = (x.to(dtype).requires_grad_() for x in (q, k, v))
    out = attention(q, k, v, AttentionContext(key_mask=mask if masked else None))
    assert seen == tried + [None] * one_by_one
    # In float32 the logits themselves are rounded: their errors grow with the keys' norms.
    bar = 1e-11 if dtype == torch.float64 else 2e-6 * size**2
    assert error(out, weights @ v.double()) <= bar
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.square().sum(), (q, k, v)))


@pytest.mark.parametrize("size", [1.0, 60.0])
def test_gradients_token_by_token_equal_those_of_the_logarithms(size):
    q, k, v = draw((1, 3, 12, 16), (1, 3, 12, 16), (1, 3, 12, 5))
    k[:, :, :4] *= size
    attention = module("performer", "CS", dim=16, features=8)
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[:, 5] = False

    def dense(q, k, v):
        return log_weights(q, k, attention.directions, True, mask).softmax(-1) @ v

    (grad,) = draw(v.shape, seed=1)
    want, want_grads = gradients(dense, (q, k, v), grad)
    got, got_grads = gradients(lambda *x: attention._token_by_token(*x, mask), (q, k, v), grad)
    assert error(got, want) <= 1e-11
    for x, y in zip(got_grads, want_grads, strict=True):
        assert error(x, y) <= 1e-10


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC", "CC"])
@pytest.mark.parametrize("content", [50.0, torch.inf, torch.nan])
def test_masked_keys_are_absent_whatever_they_hold(pattern, content):
    q, k, v = qkv(20, 20)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[0, :7] = mask[0, 15] = False
    mask[1] = False
    hidden = ~mask[:, None, :, None]
    k, v = (x.masked_fill(hidden, content).requires_grad_() for x in (k, v))
    attention = module("performer", pattern)
    out = attention(q, k, v, AttentionContext(key_mask=mask))
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    grads = torch.autograd.grad(out.square().sum(), (k, v))
    assert all(g.isfinite().all() for g in grads)
    kept = mask[0].nonzero()[:, 0]
    own = k[:1, :, kept], v[:1, :, kept]
    if pattern == "CS":
        assert error(out[:1, :, kept], attention(q[:1, :, kept], *own)) <= 1e-12
        assert out[0, :, :7].abs().max() == 0
    else:
        assert error(out[:1], attention(q[:1], *own)) <= 1e-12


@pytest.mark.parametrize("size", [1.0, 60.0])
def test_decoding_after_a_prompt_with_masked_tokens(size):
    q, k, v = qkv(30, 30)
    k[:, :, :4] *= size
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[0, :6] = False
    mask[1, 5:9] = False
    attention = module("performer", "CS")
    want = attention(q, k, v, AttentionContext(key_mask=mask))
    prompt = AttentionContext(key_mask=mask[:, :12])
    state = attention.prefill(k[:, :, :12], v[:, :, :12], prompt)
    for t in range(12, 30):
        own = slice(t, t + 1)
        row, state = attention.step(q[:, :, own], k[:, :, own], v[:, :, own], state)
        assert error(row, want[:, :, own]) <= 1e-12
    assert state.length == 30


def test_decoding_over_a_source_without_valid_keys():
    q, k, v = qkv(3, 9)
    attention = module("performer", "CC")
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0] = False
    context = AttentionContext(key_mask=mask)
    state = attention.prefill(k, v, context)
    row, state = attention.step(q[:, :, :1], None, None, state)
    assert row[0].abs().max() == 0
    assert error(row, attention(q, k, v, context)[:, :, :1]) <= 1e-12


def test_directions_are_redrawn_while_training_only():
    q, k, v = qkv()
    attention = module("performer", "NS", redraw=2)
    attention(q, k, v)
    first = attention.directions.clone()
    attention.train()
    seen = []
    for _ in range(5):
        attention(q, k, v)
        seen.append(attention.directions.clone())
    assert [torch.equal(first, x) for x in seen] == [True, True, False, False, False]
    assert [torch.equal(seen[2], x) for x in seen[3:]] == [True, False]
    attention.eval()
    assert torch.equal(attention(q, k, v), attention(q, k, v))
    assert torch.equal(attention.directions, seen[-1])
    assert "directions" in attention.state_dict()
    restored = module("performer", "NS", redraw=2)
    restored.load_state_dict(attention.state_dict())
    assert torch.equal(restored(q, k, v), attention(q, k, v))


def test_a_pass_before_a_redraw_can_still_be_differentiated():
    q, k, v = (x.requires_grad_() for x in qkv())
    attention = module("performer", "NS", redraw=1).train()
    out = attention(q, k, v) + attention(q, k, v)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize(
    "options", [{"features": 16, "redraw": 1}, {"features": 3, "orthogonal": False}]
)
def test_options_keep_the_contract(pattern, options):
    for check in CHECKS.values():
        check(Case(Performer, pattern, options, share=share_of(pattern, options)))


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_bfloat16(pattern):
    q, k, v = qkv(70, 70)
    attention = module("performer", pattern)
    got = attention(*(x.bfloat16() for x in (q, k, v)))
    want = attention(*(x.bfloat16().double() for x in (q, k, v)))
    assert got.dtype == torch.bfloat16
    assert error(got, want) <= 4e-3


def test_the_preset_of_cab():
    preset = Performer.info.presets["cab"]
    attention = cab.attention("performer", pattern="NS", heads=3, head_dim=5, **preset)
    assert attention.directions.shape == (3, 16, 5)
    assert attention.state_size(1000) == 3 * 16 * 6
