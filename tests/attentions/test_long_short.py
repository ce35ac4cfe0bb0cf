"""Long-short attention: one softmax over a window and summaries."""

import pytest
import torch

import cab
from attentions.shared.exact import exact_softmax_attention
from benchmarks.attentions.plain import long_short as plain
from tests.attentions.cases import draw, error, gradients, module, qkv


def normalised(attention, x):
    return attention.norm_window(x)


@pytest.mark.parametrize("pattern", ["NS", "CS"])
@pytest.mark.parametrize("length", [32, 64, 96])
def test_equals_the_plain_form(pattern, length):
    q, k, v = qkv(length, length)
    attention = module("long-short", pattern, window=8, chunk=16, causal_window=16)
    assert error(attention(q, k, v), plain.attend(attention, q, k, v)) <= 1e-9


@pytest.mark.parametrize("pattern", ["NS", "CS"])
@pytest.mark.parametrize("length", [1, 7, 15, 16, 31, 33, 90])
def test_equals_the_reference_at_every_length(pattern, length):
    q, k, v = qkv(length, length)
    attention = module("long-short", pattern, chunk=8, rank=2, causal_window=11)
    assert error(attention(q, k, v), attention.reference(q, k, v)) <= 1e-12


def test_without_landmarks_it_is_block_window_softmax():
    q, k, v = qkv(40, 40)
    attention = module("long-short", "NS", landmarks=0, window=7)
    i = torch.arange(40)
    first = i - i % 7
    band = (i >= first[:, None] - 3) & (i < first[:, None] + 7 + 3)
    want = exact_softmax_attention(q, normalised(attention, k), normalised(attention, v), band)
    assert error(attention(q, k, v), want) <= 1e-12


def test_a_window_over_everything_and_no_landmarks_is_softmax_of_the_normalised():
    q, k, v = qkv()
    attention = module("long-short", "NS", landmarks=0, window=19)
    want = module("softmax", "NS")(q, normalised(attention, k), normalised(attention, v))
    assert error(attention(q, k, v), want) <= 1e-12


def test_an_equal_projection_summarises_by_means():
    q, k, v = qkv(24, 24)
    attention = module("long-short", "NS", landmarks=2, window=5)
    torch.nn.init.zeros_(attention.projection)
    keys, values = normalised(attention, k), normalised(attention, v)
    means = [
        attention.norm_summary(x.mean(-2, keepdim=True).expand(-1, -1, 2, -1))
        for x in (keys, values)
    ]
    i = torch.arange(24)
    first = i - i % 5
    band = (i >= first[:, None] - 2) & (i < first[:, None] + 5 + 2)
    want = exact_softmax_attention(
        q,
        torch.cat([means[0], keys], dim=-2),
        torch.cat([means[1], values], dim=-2),
        torch.cat([torch.ones(24, 2, dtype=torch.bool), band], dim=-1),
    )
    assert error(attention(q, k, v), want) <= 1e-12


def test_no_summary_of_the_own_chunk_and_no_empty_memory():
    q, k, v = qkv(12, 12)
    attention = module("long-short", "CS", chunk=8, causal_window=12)
    window = module("long-short", "CS", chunk=12, causal_window=12)
    window.load_state_dict(attention.state_dict())
    # In the first chunk there is nothing to summarise: the window alone decides.
    assert error(attention(q, k, v)[:, :, :8], window(q, k, v)[:, :, :8]) <= 1e-12
    assert error(attention(q, k, v)[:, :, 8:], window(q, k, v)[:, :, 8:]) > 1e-3


@pytest.mark.parametrize("length_q", [1, 5, 30])
def test_fewer_queries_than_keys_are_the_last_ones(length_q):
    q, k, v = qkv(50, 50)
    attention = module("long-short", "CS", chunk=8, causal_window=11)
    whole = attention(q, k, v)
    assert error(attention(q[:, :, -length_q:], k, v), whole[:, :, -length_q:]) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_gradients_of_inputs_and_parameters(pattern):
    inputs = qkv(37, 37)
    (g,) = draw((2, 3, 37, 5), seed=4)
    attention = module("long-short", pattern, chunk=8, rank=2, causal_window=9)
    _, got = gradients(attention, inputs, g)
    _, want = gradients(attention.reference, inputs, g)
    for a, b in zip(got, want, strict=True):
        assert error(a, b) <= 1e-9
    parameters = list(attention.parameters())
    got = torch.autograd.grad((attention(*inputs) * g).sum(), parameters)
    want = torch.autograd.grad((attention.reference(*inputs) * g).sum(), parameters)
    for a, b in zip(got, want, strict=True):
        assert error(a, b) <= 1e-9


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_rows_of_different_lengths(pattern):
    q, k, v = draw(*[(3, 3, 40, 5)] * 3)
    lengths = (40, 21, 3)
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    attention = module("long-short", pattern, chunk=8, causal_window=9)
    out = attention(q, k, v, cab.AttentionContext(query_mask=mask, key_mask=mask))
    for row, n in enumerate(lengths):
        short = attention(*(x[row : row + 1, :, :n] for x in (q, k, v)))
        assert error(out[row : row + 1, :, :n], short) <= 1e-12


def test_a_chunk_must_fit_in_the_window():
    with pytest.raises(ValueError, match="does not fit in a causal_window"):
        module("long-short", "CS", chunk=32, causal_window=16)


def test_low_precision():
    q, k, v = (x.bfloat16() for x in qkv(64, 64))
    for pattern in ("NS", "CS"):
        out = module("long-short", pattern)(q, k, v)
        assert out.dtype == torch.bfloat16
        assert out.isfinite().all()
