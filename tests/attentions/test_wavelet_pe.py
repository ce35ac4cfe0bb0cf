"""Wavelet positions: the direct formula, softmax without them, distances alone, decoding."""

import math

import pytest
import torch

from attentions.shared.masks import visible
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PLACES = torch.tensor([0, 2, 3, 7, 8, 9, 10, 21, 22, 23, 24, 25, 26, 30, 31, 32, 40, 41, 42])


def ricker(t, a, b):
    u = (t - b) / a
    return (1 - u * u) * math.exp(-u * u / 2)


def direct(attention, first, q, k, v):
    """Loops over pairs and components."""
    dim, length = q.shape[-1], k.shape[2]
    shifts = dim // attention.scales
    p = torch.tensor(
        [
            [
                [ricker(i - j, 2.0 ** (first + c // shifts), c % shifts) for c in range(dim)]
                for j in range(length)
            ]
            for i in range(length - q.shape[2], length)
        ],
        dtype=torch.float64,
    )
    scores = (q @ k.mT + torch.einsum("bhid,ijd->bhij", q, p)) / math.sqrt(dim)
    mask = visible(attention.pattern, q.shape[2], length, None)
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("pattern", ["NS", "CS"])
@pytest.mark.parametrize(("length", "last"), [(1, 1), (2, 2), (2, 1), (19, 19), (19, 7), (19, 1)])
@pytest.mark.parametrize(("dim", "first"), [(8, 0), (12, 2), (5, 1)])
def test_equals_the_direct_formula(pattern, length, last, dim, first):
    q, k, v = qkv(last, length, dim)
    attention = module("wavelet-pe", pattern, dim, first=first)
    (grad,) = draw(q.shape, seed=1)
    got, found = gradients(attention, (q, k, v), grad)
    want, slopes = gradients(lambda *x: direct(attention, first, *x), (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-11 for x, y in zip(found, slopes, strict=True))
    assert error(got, attention.reference(q, k, v)) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_without_wavelets_it_is_softmax(pattern, monkeypatch):
    q, k, v = qkv()
    attention = module("wavelet-pe", pattern)
    softmax = module("softmax", pattern)(q, k, v)
    assert error(attention(q, k, v), softmax) > 1e-2
    wavelets = attention.wavelets
    monkeypatch.setattr(attention, "wavelets", lambda *x: torch.zeros_like(wavelets(*x)))
    assert error(attention(q, k, v), softmax) <= 1e-12


def test_constant_tokens_are_weighed_by_their_distance():
    q, k, _ = qkv(30, 30, 8)
    q, k = (x[:, :, :1].expand(-1, -1, 30, -1) for x in (q, k))
    weights = module("wavelet-pe", "CS", 8)(q, k, torch.eye(30).double().expand(2, 3, -1, -1))
    ratios = weights[..., 1:, 1:] / weights[..., :-1, :-1]  # of rows that differ in their sum
    ratios = ratios.tril()
    for i in (5, 28):
        own = ratios[..., i, : i + 1]
        assert torch.allclose(own, own[..., :1].expand_as(own), rtol=1e-10)


def test_a_wavelet_peaks_at_its_shift():
    attention = module("wavelet-pe", "CS", 64)
    assert attention.scales == 8
    p = attention.wavelets(torch.arange(8), torch.float64)
    for b in range(8):
        assert p[b, b::8].tolist() == [1.0] * 8  # in every scale
        assert (p[b] <= 1).all()
    assert module("wavelet-pe", "CS", 12).scales == 4
    assert module("wavelet-pe", "CS", 5).scales == 1


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_distances_are_those_of_positions(pattern):
    q, k, v = qkv(19, 19, 8)
    attention = module("wavelet-pe", pattern, 8)
    mask = torch.zeros(2, 43, dtype=torch.bool)
    mask[:, PLACES] = True
    spread = [x.new_zeros(2, 3, 43, 8).index_copy(2, PLACES, x) for x in (q, k, v)]
    want = attention(*spread, AttentionContext(mask, mask))[:, :, PLACES]
    assert error(attention(q, k, v, AttentionContext(key_positions=PLACES)), want) <= 1e-12
    assert error(attention(q, k, v), want) > 1e-3


def test_decoding_after_a_prompt_with_gaps():
    q, k, v = qkv(19, 19, 8)
    attention = module("wavelet-pe", "CS", 8)
    places = torch.cat([PLACES[:12], torch.arange(26, 33)])
    want = attention(q, k, v, AttentionContext(key_positions=places))
    prompt = AttentionContext(key_positions=places[:12])
    state = attention.prefill(k[:, :, :12], v[:, :, :12], prompt)
    for t in range(12, 19):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-12


def test_scales_are_powers_of_two():
    with pytest.raises(ValueError, match="power of two"):
        module("wavelet-pe", "CS", scales=6)
