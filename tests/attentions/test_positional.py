"""Positional attention: what it reads, what it is linear in, positions and decoding."""

import math

import pytest
import torch

from attentions.positional import sinusoids
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import visible
from cab import AttentionContext
from tests.attentions.cases import draw, error, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
PLACES = torch.tensor([0, 2, 3, 7, 8, 9, 10, 21, 22, 23, 24, 25, 26, 30, 31, 32, 40, 41, 42])


def built(pattern, **options):
    attention = module("positional", pattern, **options)
    maps, shifts = draw(attention.maps.shape, attention.shifts.shape, seed=6)
    attention.maps.data.copy_(maps)
    attention.shifts.data.copy_(shifts)
    return attention


def tokens(pattern):
    return qkv(13 if pattern.endswith("C") else 19, 19)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("width", [0, 1, 8])
def test_equals_softmax_of_explicit_logits(pattern, width):
    q, k, v = tokens(pattern)
    attention = built(pattern, width=width)
    d = width or 5
    codes = sinusoids(torch.arange(19), d)
    rows = torch.einsum("ld,hde->hle", codes, attention.maps[0]) + attention.shifts[0]
    keys = torch.einsum("ld,hde->hle", codes, attention.maps[1]) + attention.shifts[1]
    logits = torch.einsum("hid,hjd->hij", rows[:, : q.shape[2]], keys) / math.sqrt(d)
    mask = visible(attention.pattern, q.shape[2], 19, None)
    logits = logits if mask is None else logits.masked_fill(~mask, -torch.inf)
    want = torch.einsum("hij,bhjd->bhid", logits.softmax(-1), v)
    assert error(attention(q, k, v), want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_queries_and_keys_are_not_read_and_values_are_mixed_linearly(pattern):
    q, k, v = tokens(pattern)
    attention = built(pattern)
    out = attention(q, k, v)
    noise_q, noise_k, w = draw(q.shape, k.shape, v.shape, seed=9)
    assert torch.equal(attention(noise_q, noise_k, v), out)
    other = attention(q, k, w)
    assert error(attention(q, k, 2 * v - 3 * w), 2 * out - 3 * other) <= 1e-12


def test_waves():
    codes = sinusoids(torch.tensor([0, 1, 12345]), 4)
    want = [f(x) for f in (math.sin, math.cos) for x in (12345.0, 12345 / 100)]
    assert torch.allclose(codes[2], torch.tensor(want).double()[[0, 1, 2, 3]], atol=1e-6)
    assert codes[0].tolist() == [0, 0, 1, 1]
    assert sinusoids(torch.arange(3), 5).shape == (3, 5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_tokens_at_places_are_those_among_masked_ones(pattern):
    q, k, v = qkv()
    attention = built(pattern)
    mask = torch.zeros(2, 43, dtype=torch.bool)
    mask[:, PLACES] = True
    spread = [x.new_zeros(2, 3, 43, 5).index_copy(2, PLACES, x) for x in (q, k, v)]
    want = attention(*spread, AttentionContext(mask, mask))[:, :, PLACES]
    placed = AttentionContext(query_positions=PLACES, key_positions=PLACES)
    assert error(attention(q, k, v, placed), want) <= 1e-12
    rows = torch.stack([PLACES, PLACES + 3])
    placed = AttentionContext(query_positions=rows, key_positions=rows)
    assert error(attention(q, k, v, placed)[:1], want[:1]) <= 1e-12
    assert error(attention(q, k, v, placed)[1:], want[1:]) > 1e-3


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_decoding_in_places(pattern):
    q, k, v = qkv()
    attention = built(pattern)
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, [1, 2]] = False
    rows = torch.stack([PLACES, PLACES + 3])
    context = AttentionContext(None, mask, query_positions=rows, key_positions=rows)
    want, source = attention(q, k, v, context), 19 if pattern == "CC" else 5
    prompt = AttentionContext(key_mask=mask[:, :source], key_positions=rows[:, :source])
    state = attention.prefill(k[:, :, :source], v[:, :, :source], prompt)
    for t in range(0 if pattern == "CC" else 5, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        token = AttentionContext(query_positions=rows[:, own], key_positions=rows[:, own])
        row, state = attention.step(q[:, :, own], *new, state, token)
        assert error(row, want[:, :, own]) <= 1e-12


def test_steps_without_positions_follow_the_prompt():
    q, k, v = qkv()
    attention = built("CS")
    want = attention(q, k, v)
    state = attention.prefill(k[:, :, :0], v[:, :, :0])
    for t in range(19):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-12


def test_the_last_queries_alone():
    q, k, v = qkv()
    attention = built("CS")
    assert error(attention(q[:, :, 12:], k, v), attention(q, k, v)[:, :, 12:]) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_map_for_the_batch_is_that_of_masked_rows(pattern):
    q, k, v = tokens(pattern)
    attention = built(pattern)
    mask = torch.ones(2, 19, dtype=torch.bool)
    got = attention(q, k, v, AttentionContext(key_mask=mask))
    assert error(got, attention(q, k, v)) <= 1e-12


def test_the_dense_form_is_the_reference_of_its_encoded_positions():
    q, k, v = qkv()
    attention = built("NS")
    of_queries, of_keys = attention._encoded(q, k, torch.float64, None)
    want = exact_softmax_attention(
        of_queries.expand(2, -1, -1, -1), of_keys.expand(2, -1, -1, -1), v, None
    )
    assert error(attention.reference(q, k, v), want) <= 1e-13
