"""Multi-head latent attention: its formula token by token, softmax where nothing is compressed, and
a cache of latents.
"""

import math

import pytest
import torch

import cab
from cab import AttentionContext
from tests.attentions.cases import draw, error, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG, DIM = 19, 6


def tokens(pattern):
    """q, k, v and a context with the layer's inputs at queries and keys."""
    q, k, v = qkv(13 if pattern.endswith("C") else LONG, LONG, DIM)
    x, y = draw((2, q.shape[2], 3 * DIM), (2, LONG, 3 * DIM), seed=5)
    return q, k, v, AttentionContext(query_input=x, key_input=y if pattern.endswith("C") else x)


def turned(x, place):
    """Pairs of channels n and n + d / 2 as complex numbers, turned by an angle for each."""
    half = len(x) // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    z = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones_like(rates), place * rates)
    return torch.cat([z.real, z.imag])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_head_reads_one_latent_and_one_rotated_key(pattern):
    q, k, v, context = tokens(pattern)
    attention = module("mla", pattern, dim=DIM, latent=5, rotary=0.66)
    attention.norm.data.uniform_(0.5, 2.0)
    cross, (batch, head, row) = pattern.endswith("C"), (1, 2, 8)
    assert attention.turning == (0 if cross else 4)
    content = DIM - attention.turning
    up_k = attention.up_k.weight[head * content : (head + 1) * content]
    up_v = attention.up_v.weight[head * DIM : (head + 1) * DIM]
    scores, values = [], []
    for j in range(row + 1 if pattern == "CS" else LONG):
        y = context.key_input[batch, j]
        c = attention.down.weight @ y
        c = attention.norm * c / (c.square().mean() + 1e-6).sqrt()
        score = q[batch, head, row, :content] @ (up_k @ c)
        if not cross:
            key = turned(attention.turned.weight @ y, j)
            score = score + turned(q[batch, head, row, content:], row) @ key
        scores.append(score / DIM**0.5)
        values.append(up_v @ c)
    want = torch.stack(scores).softmax(0) @ torch.stack(values)
    assert error(attention(q, k, v, context)[batch, head, row], want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_latent_as_wide_as_the_layer_is_softmax_of_projected_keys_and_values(pattern):
    q, k, v, context = tokens(pattern)
    width = 3 * DIM
    y = context.key_input
    y /= y.square().mean(-1, keepdim=True).sqrt()
    attention = module("mla", pattern, dim=DIM, latent=width, rotary=0.0)
    attention.down.weight.data.copy_(torch.eye(width))
    keys, values = (
        (y @ layer.weight.mT).unflatten(-1, (3, DIM)).transpose(1, 2)
        for layer in (attention.up_k, attention.up_v)
    )
    want = module("softmax", pattern, dim=DIM)(q, keys, values)
    assert error(attention(q, k, v, context), want) <= 1e-5  # the norm adds 1e-6 to a square


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_places_count_by_their_differences(pattern):
    q, k, v, context = tokens(pattern)
    attention = module("mla", pattern, dim=DIM)
    want = attention(q, k, v, context)
    context.key_positions = torch.arange(LONG) + 300
    assert error(attention(q, k, v, context), want) <= 1e-11
    context.key_positions = 2 * torch.arange(LONG)
    assert error(attention(q, k, v, context), want) > 1e-3


def test_rows_of_a_batch_have_places_of_their_own():
    q, k, v, context = tokens("CS")
    attention = module("mla", "CS", dim=DIM)
    places = torch.stack([torch.arange(LONG), 3 * torch.arange(LONG)])
    context.key_positions = places
    out = attention(q, k, v, context)
    for row in range(2):
        own = AttentionContext(
            key_input=context.key_input[row : row + 1], key_positions=places[row]
        )
        alone = attention(*(x[row : row + 1] for x in (q, k, v)), own)
        assert error(out[row : row + 1], alone) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_backbones_keys_and_values_are_not_read(pattern):
    q, k, v, context = tokens(pattern)
    attention = module("mla", pattern, dim=DIM)
    want = attention(q, k, v, context)
    assert torch.equal(attention(q, k + 1, -v, context), want)


def test_the_cache_is_of_latents():
    _, k, v, context = tokens("CS")
    attention = module("mla", "CS", dim=DIM, latent=5)
    past = AttentionContext(key_input=context.key_input)
    state = attention.prefill(k, v, past)
    stored = state.tensors["latent"].shape[-1] + state.tensors["turned"].shape[-1]
    assert stored == 5 + attention.turning == attention.state_size(1)
    softmax = module("softmax", "CS", dim=DIM)
    assert attention.state_size(100) * 5 <= softmax.state_size(100)


def test_what_it_adds_stays_within_a_tenth_of_a_layer():
    for heads, dim in ((2, 16), (4, 16), (8, 64)):
        attention = cab.attention("mla", pattern="CS", heads=heads, head_dim=dim)
        width = heads * dim
        added = sum(math.prod(p.shape) for p in attention.parameters())
        assert added <= 0.1 * 12 * width**2


def test_a_channel_of_content_is_left_whatever_is_rotated():
    for dim in range(1, 8):
        attention = cab.attention("mla", pattern="NS", heads=2, head_dim=dim, rotary=1.0)
        assert attention.turning % 2 == 0
        assert 0 <= attention.turning < dim


def test_without_layer_inputs_it_says_what_to_give():
    with pytest.raises(ValueError, match="AttentionContext"):
        module("mla", "CS", dim=DIM)(*qkv(LONG, LONG, DIM))
