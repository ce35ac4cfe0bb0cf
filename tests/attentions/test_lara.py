"""LARA: weights, degenerate cases, masks, noise, and the two other forms."""

import pytest
import torch

import cab
from attentions.lara import LinearRandomizedAttention
from benchmarks.attentions.plain import lara as plain
from cab.checks import CHECKS, Case
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.contract.share import share_of

OPTIONS = [{}, {"weighting": "optimal"}]


def seeded(function, *inputs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return function(*inputs)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("length", [1, 9, 16, 33])
def test_weights_are_a_distribution_over_the_keys(length, options):
    q, k, v = qkv(length, length)
    attention = module("lara", "NS", **options)
    eye = torch.eye(length).double().expand(2, 3, length, length)
    weights = attention.reference(q, k, eye)
    assert weights.min() >= 0
    assert error(weights.sum(-1), torch.ones(2, 3, length).double()) <= 1e-13
    assert error(attention(q, k, v), weights @ v) <= 1e-12


@pytest.mark.parametrize("options", OPTIONS)
def test_one_landmark_gives_every_query_the_same_mean(options):
    q, k, v = qkv(20, 20)
    mu = (q.mean(-2) + k.mean(-2))[:, :, None]
    logits = ((mu * k).sum(-1) - k.square().sum(-1) / 2) / 5**0.5
    want = logits.softmax(-1)[:, :, None] @ v
    got = module("lara", "NS", landmarks=1, **options)(q, k, v)
    assert error(got, want.expand_as(v)) <= 1e-13


def test_optimal_weights_by_hand():
    q, k, v = draw((1, 1, 4, 3), (1, 1, 4, 3), (1, 1, 4, 2))
    scale, mu = 3**-0.5, (q + k)[0, 0]

    def log_kernel(x, w):
        return (w @ x - x @ x / 2) * scale

    want = torch.zeros(4, 2).double()
    for i in range(4):
        t = torch.stack([q[0, 0, c] @ q[0, 0, i] * scale for c in range(4)]).softmax(-1)
        r, means = [], []
        for c in range(4):
            densities = torch.stack([log_kernel(mu[d], mu[c]) for d in range(4)])
            weight = densities.softmax(-1)[c] + t[c] - t.mean()
            keys = torch.stack([log_kernel(k[0, 0, j], mu[c]) for j in range(4)])
            r.append(
                weight.clamp(min=1e-8).log()
                + log_kernel(q[0, 0, i], mu[c])
                + keys.logsumexp(-1)
                - densities[c]
            )
            means.append(keys.softmax(-1) @ v[0, 0])
        want[i] = torch.stack(r).softmax(-1) @ torch.stack(means)
    got = module("lara", "NS", dim=3, weighting="optimal")(q, k, v)
    assert error(got[0, 0], want) <= 1e-13


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [*OPTIONS, {"antithetic": True}])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 45])
def test_equals_the_plain_form(length, options, training):
    q, k, v = qkv(length, length)
    attention = module("lara", "NS", **options).train(training)
    want = seeded(plain.attend, attention, q, k, v)
    assert error(seeded(attention, q, k, v), want) <= 1e-11


def test_noise_is_drawn_in_training_only():
    q, k, v = qkv(40, 40)
    attention = module("lara", "NS", antithetic=True)
    assert torch.equal(attention(q, k, v), attention(q, k, v))
    attention.train()
    assert torch.equal(seeded(attention, q, k, v), seeded(attention, q, k, v))
    assert error(attention(q, k, v), attention(q, k, v)) > 1e-3
    noise = attention._noise(q, 16)
    assert noise.shape == (2, 3, 32, 5)
    assert torch.equal(noise[:, :, :16], -noise[:, :, 16:])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("length", [19, 35])
def test_rows_of_different_lengths_are_as_if_alone(length, options):
    mask = torch.zeros(6, length, dtype=torch.bool)
    for row, count in enumerate((length, 17, 16, 5, 1, 0)):
        mask[row, torch.randperm(length, generator=torch.Generator().manual_seed(row))[:count]] = 1
    q, k, v = (x.masked_fill(~mask[:, None, :, None], 1e30) for x in draw(*[(6, 3, length, 5)] * 3))
    attention = module("lara", "NS", **options)
    got = attention(q, k, v, cab.AttentionContext(key_mask=mask))
    for row in range(5):
        kept = (x[row : row + 1, :, mask[row]] for x in (q, k, v))
        places = cab.AttentionContext(key_positions=mask[row].nonzero()[:, 0])
        assert error(got[row : row + 1, :, mask[row]], attention(*kept, places)) <= 1e-12
    assert got[5].abs().max() == 0


@pytest.mark.parametrize("length", [7, 35])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [*OPTIONS, {"antithetic": True, "weighting": "optimal"}])
def test_gradients_are_those_of_the_reference(options, training, masked, length):
    q, k, v, gradient = draw(*[(4, 3, length, 5)] * 4)
    context = cab.AttentionContext()
    if masked:
        context.key_mask = torch.ones(4, length, dtype=torch.bool)
        context.key_mask[0, 2:4] = False
        context.key_mask[1, 4:] = False
        context.key_mask[2] = False
        gradient = gradient * context.key_mask[:, None, :, None]
    attention = module("lara", "NS", **options).train(training)

    def run(function):
        return seeded(gradients, lambda *x: function(*x, context), (q, k, v), gradient)

    (got, grads), (want, want_grads) = run(attention), run(attention.reference)
    valid = slice(None) if not masked else context.key_mask[:, None].expand(-1, 3, -1)
    assert error(got[valid], want[valid]) <= 1e-11
    for a, b in zip(grads, want_grads, strict=True):
        assert error(a, b) <= 1e-9


def test_gradients_by_differences():
    attention = module("lara", "NS", dim=2, landmarks=3)
    leaves = draw(*[(1, 1, 7, 2)] * 3)
    assert torch.autograd.gradcheck(attention, [x.requires_grad_() for x in leaves])


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "options", [{"weighting": "optimal"}, {"landmarks": 40}, {"landmarks": 1, "antithetic": True}]
)
def test_contract_with_options(options, check):
    share = share_of(options)
    CHECKS[check](Case(LinearRandomizedAttention, Pattern.NONCAUSAL_SELF, options, share=share))


def test_needs_a_landmark():
    with pytest.raises(ValueError, match="must be at least 1"):
        LinearRandomizedAttention(cab.AttentionSpec(Pattern.NONCAUSAL_SELF, 2, 4), landmarks=0)


def test_long_vectors_do_not_overflow():
    q, k, v = (x.float() for x in qkv(40, 40))
    for options in OPTIONS:
        attention = module("lara", "NS", **options)
        want = attention(*(x.double() for x in (100 * q, 100 * k, v)))
        assert error(attention(100 * q, 100 * k, v), want) <= 1e-2


@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_loses_only_that_of_the_inputs(autocast):
    rounded = [x.bfloat16() for x in draw(*[(2, 3, 200, 8)] * 3)]
    attention = module("lara", "NS", dim=8)
    want = attention(*(x.double() for x in rounded))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = attention(*rounded)
    assert got.dtype == torch.bfloat16
    assert error(got, want) <= 2.0**-8


def test_keeps_nothing_of_both_lengths():
    q, k, v = (torch.randn(1, 2, 512, 16, requires_grad=True) for _ in range(3))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, id):
        module("lara", "NS", dim=16).float()(q, k, v)
    assert max(kept) <= 2 * 512 * 16


def test_samples_of_empty_segments_far_from_all_others_do_not_overflow():
    """Their ratio of densities is beyond float32; they have no part in the output."""
    q, k, v = (20 * torch.randn(1, 2, 9, 64) + 4 for _ in range(3))
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[:, 2:7] = False
    attention = module("lara", "NS", dim=64, landmarks=5, weighting="optimal")
    context = cab.AttentionContext(query_mask=mask, key_mask=mask)
    out = attention.float()(q, k, v, context)[:, :, mask[0]]
    want = attention.double().reference(q.double(), k.double(), v.double(), context)[:, :, mask[0]]
    assert out.isfinite().all()
    assert error(out.double(), want) <= 1e-3
