"""Softmax over windows and shared columns, by blocks, against the mask written out."""

import pytest
import torch

from attentions.shared.exact import exact_softmax_attention
from attentions.shared.window_tiles import Summaries
from attentions.shared.windows import windowed_softmax_attention
from benchmarks.attentions.plain import local as plain
from cab import AttentionContext
from cab.density import ReadsShare
from tests.attentions.cases import draw, error, gradients, module, qkv


def dense(q, k, v, key_mask, before, after, segment=1, summaries=None):
    length_q, length_k = q.shape[-2], k.shape[-2]
    i = torch.arange(length_q)[:, None] + length_k - length_q
    j = torch.arange(length_k)
    first = i - i % segment
    sees = (j >= first - before) & (j < first + segment + after)
    sees = sees.expand(q.shape[0], 1, -1, -1)
    if key_mask is not None:
        sees = sees & key_mask[:, None, None, :]
    if summaries is not None:
        count = summaries.keys.shape[-2]
        column = torch.ones(length_q, count, dtype=torch.bool)
        if summaries.chunk:
            column = torch.arange(count) // summaries.rank < i // summaries.chunk
        column = column.expand(q.shape[0], 1, -1, -1)
        if summaries.mask is not None:
            column = column & summaries.mask[:, None, None, :]
        sees = torch.cat([column, sees], dim=-1)
        k, v = (torch.cat(x, dim=-2) for x in ((summaries.keys, k), (summaries.values, v)))
    return exact_softmax_attention(q, k, v, sees)


WINDOWS = [
    (0, 0, 1),
    (3, 0, 1),
    (2, 5, 1),
    (40, 40, 1),
    (14, 0, 1),
    (15, 15, 1),
    (2, 2, 5),
    (0, 0, 4),
    (70, 3, 1),
]


@pytest.mark.parametrize("length", [1, 7, 16, 17, 50, 130])
@pytest.mark.parametrize(("before", "after", "segment"), WINDOWS)
def test_equals_the_mask(length, before, after, segment):
    q, k, v = qkv(length, length)
    mask = torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3
    for key_mask in (None, mask):
        got = windowed_softmax_attention(
            q, k, v, key_mask, before=before, after=after, segment=segment
        )
        assert error(got, dense(q, k, v, key_mask, before, after, segment)) <= 1e-12


@pytest.mark.parametrize("length_q", [1, 3, 29, 49])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (6, 0), (60, 0)])
def test_fewer_queries_than_keys(length_q, before, after):
    q, k, v = qkv(length_q, 50)
    got = windowed_softmax_attention(q, k, v, None, before=before, after=after)
    assert error(got, dense(q, k, v, None, before, after)) <= 1e-12


@pytest.mark.parametrize("chunk", [0, 8])
@pytest.mark.parametrize("length_q", [37, 11])
def test_summaries_share_the_softmax(chunk, length_q):
    q, k, v = qkv(length_q, 37)
    count = 2 * (37 // 8)
    keys, values = draw((2, 3, count, 5), (2, 3, count, 5), seed=2)
    hidden = torch.rand(2, count, generator=torch.Generator().manual_seed(1)) > 0.3
    for mask in (None, hidden):
        summaries = Summaries(keys, values, mask, chunk, 2)
        got = windowed_softmax_attention(q, k, v, None, before=5, after=0, summaries=summaries)
        assert error(got, dense(q, k, v, None, 5, 0, summaries=summaries)) <= 1e-12


@pytest.mark.parametrize(("before", "after", "segment"), [(4, 0, 1), (3, 3, 1), (2, 2, 5)])
def test_gradients(before, after, segment):
    q, k, v = qkv(41, 41)
    keys, values = draw((2, 3, 6, 5), (2, 3, 6, 5), seed=2)
    (g,) = draw((2, 3, 41, 5), seed=3)
    mask = torch.rand(2, 41, generator=torch.Generator().manual_seed(1)) > 0.3
    mask[0] = False
    for key_mask in (None, mask):

        def ours(q, k, v, a, b, key_mask=key_mask):
            return windowed_softmax_attention(
                q, k, v, key_mask, before=before, after=after, segment=segment,
                summaries=Summaries(a, b),
            )  # fmt: skip

        def plainly(q, k, v, a, b, key_mask=key_mask):
            return dense(q, k, v, key_mask, before, after, segment, Summaries(a, b))

        inputs = (q, k, v, keys, values)
        out, got = gradients(ours, inputs, g)
        want_out, want = gradients(plainly, inputs, g)
        assert error(out, want_out) <= 1e-12
        for a, b in zip(got, want, strict=True):
            assert error(a, b) <= 1e-9


@pytest.mark.parametrize("pattern", ["NS", "CS"])
@pytest.mark.parametrize("length", [16, 50])
def test_local_equals_the_plain_form(pattern, length):
    q, k, v = qkv(length, length)
    attention = module("local", pattern)
    assert error(attention(q, k, v), plain.attend(attention, q, k, v)) <= 1e-9


@pytest.mark.parametrize(
    ("pattern", "window", "last"),
    [(p, w, 47) for p in ("NS", "CS") for w in (1, 5, 100)] + [("CS", 5, 9)],
)
def test_local_says_what_lies_in_its_window(pattern, window, last):
    q, k, _ = qkv(47, 47)
    attention = module("local", pattern, window=window)
    assert isinstance(attention, ReadsShare)
    names = torch.eye(47).double().expand(2, 3, -1, -1)
    mask = torch.rand(2, 47, generator=torch.Generator().manual_seed(1)) > 0.4
    context = AttentionContext(query_mask=mask[:, -last:], key_mask=mask)
    reads = attention(q[:, :, -last:], k, names, context)[:, 0] > 0
    pairs = mask[:, -last:, None] & mask[:, None]
    visible = pairs.tril(47 - last) if pattern == "CS" else pairs
    want = (reads & pairs).sum((1, 2)) / visible.sum((1, 2)).double()
    found = attention.density(q[:, :, -last:], k, context)
    assert torch.allclose(found, want[:, None].expand(2, 3))
    if last == 47:
        whole = (attention(q, k, names)[0, 0] > 0).sum().item()
        every = 47 * 48 / 2 if pattern == "CS" else 47 * 47
        assert attention.density(q, k).mean().item() == pytest.approx(whole / every)
