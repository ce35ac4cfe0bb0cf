"""Softmax attention over runs of keys: equals the dense form, with gradients of its log-sum-exp."""

import pytest
import torch

from attentions.shared.key_ranges import _Plan, attend_to_both, range_attention
from tests.attentions.cases import draw, error, gradients, qkv

LENGTH_Q, LENGTH_K, RUNS = 41, 150, 3


def runs(kind):
    """(2, 3, Lq, runs) first and last."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, 3, LENGTH_Q, RUNS)
    first = torch.randint(0, LENGTH_K, shape, generator=generator)
    width = {"short": 9, "long": LENGTH_K, "single": 1, "none": 0}[kind]
    size = torch.randint(min(width, 1), width + 1, shape, generator=generator)
    size[0, 1, :5] = 0
    return first, (first + size).clamp(max=LENGTH_K)


def dense(q, k, v, first, last, mask=None):
    j = torch.arange(k.shape[2])
    sees = (j >= first[..., None]) & (j < last[..., None])
    if mask is not None:
        sees = sees & mask[:, None, None, None]
    scores = (q @ k.mT * q.shape[-1] ** -0.5)[:, :, :, None].masked_fill(~sees, float("-inf"))
    empty = ~sees.any(-1, keepdim=True)
    weights = scores.masked_fill(empty, 0.0).softmax(-1) * ~empty
    lse = scores.masked_fill(empty, 0.0).logsumexp(-1)
    return weights @ v[:, :, None], lse.masked_fill(empty[..., 0], float("-inf"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["short", "long", "single", "none"])
def test_equals_the_dense_form_with_gradients(kind, masked):
    q, k, v = qkv(LENGTH_Q, LENGTH_K)
    first, last = runs(kind)
    mask = None
    if masked:
        mask = torch.rand(2, LENGTH_K, generator=torch.Generator().manual_seed(3)) > 0.4
    (g,) = draw((2, 3, LENGTH_Q, RUNS, 6), seed=4)

    def joined(attend):
        def call(*tensors):
            out, lse = attend(*tensors, first, last, mask)
            return torch.cat([out, lse.clamp(min=-50)[..., None]], -1)

        return call

    out, found = gradients(joined(range_attention), (q, k, v), g)
    want_out, want = gradients(joined(dense), (q, k, v), g)
    assert error(out, want_out) <= 1e-12
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-12


def test_runs_without_keys_are_zeros_and_weigh_nothing():
    q, k, v = qkv(LENGTH_Q, LENGTH_K)
    first, last = runs("none")
    out, lse = range_attention(q, k, v, first, last)
    assert not out.any()
    assert (lse == float("-inf")).all()


def test_two_sets_of_keys_are_joined():
    q, k, v = qkv(LENGTH_Q, LENGTH_K)
    zero, middle, end = (torch.full((2, 3, LENGTH_Q, 1), x) for x in (0, 60, LENGTH_K))
    parts = [range_attention(q, k, v, *x) for x in ((zero, middle), (middle, end), (zero, zero))]
    want = (q @ k.mT * 5**-0.5).softmax(-1) @ v
    assert error(attend_to_both(*parts[0], *parts[1])[..., 0, :], want) <= 1e-12
    whole = range_attention(q, k, v, zero, end)
    assert error(attend_to_both(*whole, *parts[2])[..., 0, :], want) <= 1e-12
    assert not attend_to_both(*parts[2], *parts[2]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes_are_summed_in_float32(dtype):
    q, k, v = (x.to(dtype) for x in qkv(LENGTH_Q, LENGTH_K))
    first, last = runs("long")
    out, lse = range_attention(q, k, v, first, last)
    assert out.dtype == lse.dtype == torch.float32
    want, _ = dense(q.double(), k.double(), v.double(), first, last)
    assert error(out, want) <= 1e-6


def test_work_goes_with_what_is_read():
    # Runs of 100 keys among 4096, begun anywhere: tiles read little more than twice that.
    q, k, _ = draw(*[(1, 2, 4096, 8)] * 3)
    first = torch.randint(0, 3996, (1, 2, 4096, 2), generator=torch.Generator().manual_seed(0))
    weights = sum(t.hidden.numel() for t in _Plan(q, k, first, first + 100, None).tiles())
    needed = 2 * 4096 * 2 * 100
    assert needed < weights < 2.2 * needed
