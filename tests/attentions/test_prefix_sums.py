"""Linear attention of given features: dense weights, the recurrence, gradients, and its limits."""

import math

import pytest
import torch
from torch.nn import functional as F

from attentions.shared import prefix_sums
from attentions.shared.prefix_sums import linear_attention, read_sums, sums_of, turned_features
from benchmarks.attentions.plain import linear_elu as plain
from tests.attentions.cases import draw, error, gradients, module, qkv

LENGTHS = [(1, 1), (5, 5), (63, 63), (64, 64), (65, 65), (130, 130), (1, 70), (66, 200)]


def features(length_q, length_k, dim=4, value_dim=3):
    q, k, v = draw((2, 3, length_q, dim), (2, 3, length_k, dim), (2, 3, length_k, value_dim))
    return q.abs(), k.abs(), v


def angles(batch, length_q, length_k):
    a_q, a_k = draw((batch, length_q), (batch, length_k), seed=3)
    return a_q.sigmoid() * math.pi / 2, a_k.sigmoid() * math.pi / 2


def dense(q, k, v, causal, angles=None, floor=0.0):
    weights = q @ k.mT
    if angles is not None:
        weights = weights * (angles[0][:, None, :, None] - angles[1][:, None, None]).cos()
    if causal:
        weights = weights.tril(k.shape[-2] - q.shape[-2])
    return weights @ v / weights.sum(-1, keepdim=True).clamp(min=floor)


@pytest.mark.parametrize("floor", [0.0, 4.0])
@pytest.mark.parametrize("turned", [0, 1, 2])
@pytest.mark.parametrize(("length_q", "length_k"), LENGTHS)
@pytest.mark.parametrize("causal", [True, False])
def test_output_and_gradients_equal_the_dense_form(causal, length_q, length_k, turned, floor):
    inputs = features(length_q, length_k)
    turns = angles(turned, length_q, length_k) if turned else None
    (grad,) = draw((2, 3, length_q, 3), seed=1)

    def ours(*x):
        return linear_attention(*x, causal=causal, angles=turns, floor=floor)[0]

    def theirs(*x):
        return dense(*x, causal, turns, floor)

    got, got_grads = gradients(ours, inputs, grad)
    want, want_grads = gradients(theirs, inputs, grad)
    assert error(got, want) <= 1e-12
    for ours_grad, want_grad in zip(got_grads, want_grads, strict=True):
        assert error(ours_grad, want_grad) <= 1e-12


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("floor", [0.0, 2.0])
def test_gradcheck_over_several_chunks_and_groups(monkeypatch, causal, floor):
    monkeypatch.setattr(prefix_sums, "_CHUNK", 2)
    monkeypatch.setattr(prefix_sums, "_CACHED", 1)
    inputs = [x[:, :1].clone().requires_grad_() for x in features(5, 6)]
    turns = angles(2, 5, 6)

    def attend(*x):
        return linear_attention(*x, causal=causal, angles=turns, floor=floor)[0]

    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


@pytest.mark.parametrize("causal", [True, False])
def test_the_sums_of_weights(causal):
    q, k, v = features(70, 80)
    total = linear_attention(q, k, v, causal=causal)[1]
    weights = q @ k.mT
    want = (weights.tril(10) if causal else weights).sum(-1, keepdim=True)
    assert error(total, want) <= 1e-13
    assert not total.requires_grad


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_rows_without_weights_are_zero_and_have_finite_gradients(causal, floor):
    q, k, v = features(70, 70)
    q[0, :, 5] = 0.0
    k[1, :, :66] = 0.0
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out, _ = linear_attention(*leaves, causal=causal, floor=floor)
    assert out[0, :, 5].abs().max() == 0
    if causal:
        assert out[1, :, :66].abs().max() == 0
    out.square().sum().backward()
    assert all(x.grad.isfinite().all() for x in leaves)


def test_autocast_leaves_the_sums_in_float32():
    inputs = [x.float().requires_grad_() for x in features(70, 70)]
    for causal in (True, False):
        want = linear_attention(*inputs, causal=causal)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = linear_attention(*inputs, causal=causal)[0]
            got_grads = torch.autograd.grad(got.sum(), inputs)
        assert torch.equal(got, want)
        for ours, theirs in zip(got_grads, torch.autograd.grad(want.sum(), inputs), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_what_is_kept_grows_with_the_length(causal, turned):
    def kept(length):
        inputs = [x.requires_grad_() for x in features(length, length)]
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, id):
            turns = angles(1, length, length) if turned else None
            linear_attention(*inputs, causal=causal, angles=turns)
        return sum(sizes)

    assert kept(1024) <= 2.01 * kept(512)


def test_sums_of_parts_add_up_and_read_the_same():
    q, k, v = features(6, 40)
    turns = angles(2, 6, 40)
    fq, fk = turned_features(q, turns[0]), turned_features(k, turns[1])
    sums = sums_of(fk[:, :, :15], v[:, :, :15]) + sums_of(fk[:, :, 15:], v[:, :, 15:])
    assert error(read_sums(fq, sums), dense(q, k, v, False, turns)) <= 1e-13
    assert read_sums(fq, torch.zeros_like(sums)).abs().max() == 0


@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
def test_linear_attention_chunks_equal_the_recurrence(length):
    q, k, v = qkv(length, length)
    fq, fk = F.elu(q) + 1, F.elu(k) + 1
    state = torch.zeros(2, 3, 5, 5).double()
    total = torch.zeros(2, 3, 5).double()
    rows = []
    for t in range(length):
        state = state + fk[:, :, t, :, None] * v[:, :, t, None, :]
        total = total + fk[:, :, t]
        numerator = (fq[:, :, t, None, :] @ state)[:, :, 0]
        rows.append(numerator / (fq[:, :, t] * total).sum(-1, keepdim=True))
    want = torch.stack(rows, dim=2)
    assert torch.allclose(module("linear-elu", "CS")(q, k, v), want, atol=1e-10)


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC"])
@pytest.mark.parametrize("length", [1, 64, 100])
def test_linear_attention_equals_the_straightforward_form(pattern, length):
    q, k, v = qkv(length if pattern != "NC" else 17, length)
    attention = module("linear-elu", pattern)
    (grad,) = draw(q.shape, seed=1)
    got, got_grads = gradients(attention, (q, k, v), grad)
    want, want_grads = gradients(lambda *x: plain.attend(attention, *x), (q, k, v), grad)
    reference, reference_grads = gradients(attention.reference, (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert error(got, reference) <= 1e-12
    for x, y, z in zip(got_grads, want_grads, reference_grads, strict=True):
        assert error(x, y) <= 1e-12
        assert error(x, z) <= 1e-12
