"""InLine attention: its weights, what a zero query gives, injectivity, the local residual."""

import pytest
import torch
from torch.nn import functional as F

from attentions.shared.masks import visible
from attentions.shared.prefix_products import summed_products
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
PLACES = torch.tensor([0, 2, 3, 7, 8, 9, 10, 21, 22, 23, 24, 25, 26, 30, 31, 32, 40, 41, 42])


def tokens(pattern, length=19):
    return qkv(13 if pattern.endswith("C") else length, length)


def without_residual(pattern, **options):
    attention = module("inline", pattern, **options)
    if not attention.pattern.cross:
        attention.second.data.zero_()
        attention.second_bias.data.zero_()
    return attention


def seen_keys(attention, q, k, context=None):
    mask = visible(attention.pattern, q.shape[2], k.shape[2], context)
    seen = torch.ones(1, 1, q.shape[2], k.shape[2]).double()
    return seen if mask is None else seen * mask


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [1, 19, 64, 150])
def test_equals_the_dense_weights_whose_rows_add_up_to_one(pattern, length):
    q, k, v = tokens(pattern, length)
    attention = without_residual(pattern)
    (grad,) = draw(q.shape, seed=1)

    def dense(q, k, v):
        seen = seen_keys(attention, q, k)
        n = seen.sum(-1, keepdim=True)
        mean = seen @ k / n
        weights = ((q @ k.mT - (q * mean).sum(-1, keepdim=True)) / (5**0.5 * n) + 1 / n) * seen
        assert error(weights.sum(-1), torch.ones_like(weights[..., 0])) <= 1e-12
        return weights @ v

    got, found = gradients(attention, (q, k, v), grad)
    want, slopes = gradients(dense, (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-11 for x, y in zip(found, slopes, strict=True))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_zero_query_gives_the_mean(pattern):
    q, k, v = tokens(pattern)
    attention = without_residual(pattern)
    seen = seen_keys(attention, q, k)
    want = seen / seen.sum(-1, keepdim=True) @ v
    assert error(attention(torch.zeros_like(q), k, v), want.expand(2, 3, -1, -1)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_queries_of_one_direction_are_told_apart(pattern):
    q, k, v = tokens(pattern)
    attention = without_residual(pattern, features="relu")
    assert error(attention(2 * q, k, v), attention(q, k, v)) > 0.1
    divides = q.relu() @ k.relu().mT
    divides = divides / divides.sum(-1, keepdim=True).clamp(min=1e-9)
    doubled = (2 * q).relu() @ k.relu().mT
    doubled = doubled / doubled.sum(-1, keepdim=True).clamp(min=1e-9)
    assert error(doubled, divides) <= 1e-7


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shrink", [1, 2, 99])
def test_the_local_residual_is_a_depthwise_convolution(causal, shrink):
    q, k, v = tokens("NS")
    attention = module("inline", "CS" if causal else "NS", shrink=shrink)
    assert attention.first.shape == (3, 5, max(1, 5 // shrink))
    plain = without_residual("CS" if causal else "NS")
    got = attention(q, k, v) - plain(q, k, v)
    for b in range(2):
        for h in range(3):
            for t in (0, 1, 7, 18):
                mean = v[b, h, : t + 1].mean(0) if causal else v[b, h].mean(0)
                hidden = F.gelu(mean @ attention.first[h] + attention.first_bias[h, 0])
                taps = (hidden @ attention.second[h] + attention.second_bias[h, 0]).view(3, 5)
                want = torch.zeros(5).double()
                for tap, offset in enumerate((-2, -1, 0) if causal else (-1, 0, 1)):
                    if 0 <= t + offset < 19:
                        want = want + taps[tap] * v[b, h, t + offset]
                assert error(got[b, h, t], want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("features", ["identity", "relu", "leaky-relu", "exp"])
def test_features_and_masks(pattern, features):
    q, k, v = tokens(pattern)
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, [0, 5, 18]] = False
    mask[1] = False
    attention = module("inline", pattern, features=features)
    own = None if pattern.endswith("C") else mask
    context = AttentionContext(own, mask)
    got, want = attention(q, k, v, context), attention.reference(q, k, v, context)
    valid = seen_keys(attention, q, k, context).any(-1).expand(2, 3, -1)
    assert error(got, want) <= 1e-12
    assert not got[1].any()
    assert valid.any()


def test_what_all_keys_have_in_common_cancels():
    q, k, v = tokens("CS", 150)
    attention = module("inline", "CS")
    want = attention(q, k, v)
    for offset, bar in ((8.0, 1e-5), (512.0, 1e-3)):
        moved = (k + offset).float()
        out = attention.float()(q.float(), moved, v.float())
        assert error(out, want) <= bar
    attention.double()


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("features", ["identity", "exp"])
def test_decoding_is_the_parallel_form(pattern, features):
    q, k, v = qkv()
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, [0, 3]] = False
    attention = module("inline", pattern, features=features)
    source = 19 if pattern == "CC" else 5
    want = attention(q, k, v, AttentionContext(key_mask=mask))
    state = attention.prefill(
        k[:, :, :source], v[:, :, :source], AttentionContext(key_mask=mask[:, :source])
    )
    for t in range(0 if pattern == "CC" else 5, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        row, state = attention.step(q[:, :, own], *new, state)
        assert error(row, want[:, :, own]) <= 1e-12
    assert sum(x[0].numel() for x in state.tensors.values()) == attention.state_size(19)


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_taps_are_of_positions(pattern):
    q, k, v = qkv()
    attention = module("inline", pattern)
    mask = torch.zeros(2, 43, dtype=torch.bool)
    mask[:, PLACES] = True
    spread = [x.new_zeros(2, 3, 43, 5).index_copy(2, PLACES, x) for x in (q, k, v)]
    want = attention(*spread, AttentionContext(mask, mask))[:, :, PLACES]
    got = attention(q, k, v, AttentionContext(key_positions=PLACES))
    assert error(got, want) <= 1e-12
    assert error(attention(q, k, v), want) > 1e-3


@pytest.mark.parametrize("length_q", [1, 3, 69])
def test_fewer_queries_than_keys_are_the_last_ones(length_q):
    q, k, v = qkv(70, 70)
    attention = module("inline", "CS")
    whole = attention(q, k, v)
    assert error(attention(q[:, :, -length_q:], k, v), whole[:, :, -length_q:]) <= 1e-12


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length_q", "length_k"), [(1, 1), (64, 64), (65, 65), (3, 130), (0, 5)])
def test_sums_of_products(causal, length_q, length_k):
    q, k, v = draw((2, 3, length_q, 4), (2, 3, length_k, 4), (2, 3, length_k, 6))
    weights = q @ k.mT
    weights = weights.tril(length_k - length_q) if causal else weights
    assert error(summed_products(q, k, v, causal=causal), weights @ v) <= 1e-12


def test_features_are_named():
    with pytest.raises(OptionError, match="features"):
        module("inline", "NS", features="elu")
