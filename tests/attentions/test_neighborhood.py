"""Neighbourhood attention: NATTEN's windows, counted and written out one by one."""

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv


def reads(attention, length, context=None):
    """(L, L) bool of row 0, which keys have a weight, found by values that name their key."""
    q, k, _ = qkv(length, length)
    names = torch.eye(length).double().expand(2, 3, -1, -1)
    return attention(q, k, names, context)[0, 0] > 0


def rule(length, window, dilation, stride, causal):
    """NATTEN's rule in plain numbers; the causal leader knows no length."""
    sees = torch.zeros(length, length, dtype=torch.bool)
    left = window // 2
    right = window // 2 + window % 2 - 1
    for i in range(length):
        group, c = i % dilation, i // dilation
        n = -(-(length - group) // dilation)
        if causal:
            leader = c // stride * stride + stride - 1
            start, end = max(leader - window + 1, 0), c + 1
        elif n <= window:
            start, end = 0, n
        else:
            leader = min(c // stride * stride + stride // 2, n - 1)
            start = max(leader - left, 0)
            if leader + right >= n:
                start += n - right - leader - 1
            end = start + window
        for coordinate in range(start, end):
            sees[i, group + dilation * coordinate] = True
    return sees


OPTIONS = [
    {"window": w, "dilation": d, "stride": s}
    for w, d, s in [
        (1, 1, 1), (2, 1, 1), (2, 1, 2), (5, 1, 1), (6, 1, 1), (5, 3, 1), (4, 2, 1),
        (6, 1, 2), (7, 1, 3), (5, 1, 5), (6, 1, 6), (8, 2, 4), (9, 3, 4), (40, 1, 7),
    ]
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_reads_what_the_rule_says(pattern, options):
    for length in (1, 2, 7, 13, 30, 41):
        want = rule(length, causal=pattern == "CS", **options)
        attention = module("neighborhood", pattern, **options)
        assert torch.equal(reads(attention, length), want)
        pairs = length * (length + 1) / 2 if pattern == "CS" else length**2
        q, k, _ = qkv(length, length)
        assert error(attention.density(q, k), (want.sum().double() / pairs).expand(2, 3)) <= 1e-12


@pytest.mark.parametrize("window", [5, 6])
def test_every_query_has_w_keys_and_causally_one_to_w(window):
    counts = reads(module("neighborhood", "NS", window=window), 30).sum(-1)
    assert (counts == window).all()
    counts = reads(module("neighborhood", "CS", window=window), 30).sum(-1)
    assert torch.equal(counts, torch.arange(1, 31).clamp(max=window))


def test_a_window_over_everything_is_softmax():
    q, k, v = qkv(30, 30)
    want = module("softmax", "NS")(q, k, v)
    for window in (30, 1 << 20):
        assert error(module("neighborhood", "NS", window=window)(q, k, v), want) <= 1e-12


@pytest.mark.parametrize("window", [1, 6, 1 << 20])
def test_causally_it_is_a_sliding_window(window):
    q, k, v = qkv(30, 30)
    want = module("local", "CS", window=window)(q, k, v)
    assert error(module("neighborhood", "CS", window=window)(q, k, v), want) <= 1e-12


def test_a_stride_of_the_window_is_attention_in_blocks():
    sees = reads(module("neighborhood", "NS", window=5, stride=5), 20)
    assert torch.equal(sees, torch.block_diag(*[torch.ones(5, 5)] * 4) > 0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_equals_the_reference_with_gradients_whatever_is_masked(pattern, options):
    length = 31
    q, k, v = qkv(length, length)
    (g,) = draw(q.shape, seed=3)
    attention = module("neighborhood", pattern, **options)
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[0, 17:] = False
    short = torch.arange(length) < torch.tensor([[3], [0]])
    for own in (None, mask, short):
        context = None if own is None else AttentionContext(query_mask=own, key_mask=own)
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g)
        want_out, want = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), g)
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("options", OPTIONS[:6] + OPTIONS[-4:], ids=str)
def test_padding_behind_a_row_moves_no_window(options):
    q, k, v = qkv(31, 31)
    attention = module("neighborhood", "NS", **options)
    mask = torch.arange(31) < torch.tensor([[19], [31]])
    context = AttentionContext(query_mask=mask, key_mask=mask)
    got = attention(q, k, v, context)
    for row, n in ((0, 19), (1, 31)):
        alone = attention(*(x[row : row + 1, :, :n] for x in (q, k, v)))
        assert error(got[row : row + 1, :, :n], alone) <= 1e-12
    share = attention.density(q, k, context)[0]
    assert torch.allclose(share, attention.density(q[:1, :, :19], k[:1, :, :19])[0])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("last", [1, 4, 30])
def test_the_last_queries_alone(options, last):
    q, k, v = qkv(41, 41)
    attention = module("neighborhood", "CS", **options)
    whole = attention(q, k, v)
    assert error(attention(q[:, :, -last:], k, v), whole[:, :, -last:]) <= 1e-12


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("prompt", [0, 1, 12])
def test_steps_are_the_parallel_form(options, prompt):
    q, k, v = qkv(30, 30)
    attention = module("neighborhood", "CS", **options)
    whole = attention(q, k, v)
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt])
    for t in range(prompt, 30):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, whole[:, :, t : t + 1]) <= 1e-12
    assert state.tensors["k"].shape[-2] * 2 * 3 * 5 == attention.state_size(30)


def test_alternate_layers_dilate_every_second_one():
    dilations = [
        module("neighborhood", "NS", dilation=4, alternate=True, layer_index=i, layers=4).dilation
        for i in range(4)
    ]
    assert dilations == [1, 4, 1, 4]


def test_a_stride_beyond_the_window_is_refused():
    with pytest.raises(ValueError, match="stride of 9"):
        module("neighborhood", "NS", window=8, stride=9)
