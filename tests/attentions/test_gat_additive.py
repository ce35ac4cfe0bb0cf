"""Additive graph attention: static ranking, means, the output's ReLU, decoding."""

import pytest
import torch
from torch.nn import functional as F

from attentions.shared.masks import visible
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]


def tokens(pattern):
    return qkv(13 if pattern.endswith("C") else 19, 19)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("slope", [0.01, 0.2])
def test_equals_softmax_of_the_sums(pattern, slope):
    q, k, v = tokens(pattern)
    attention = module("gat-additive", pattern, slope=slope)
    (grad,) = draw(q.shape, seed=1)
    mask = visible(attention.pattern, q.shape[2], 19, None)

    def dense(q, k, v):
        a_q, a_k = attention.vectors[..., 0][:, None]
        sums = (q * a_q[0][:, None]).sum(-1)[..., None] + (k * a_k[0][:, None]).sum(-1)[
            ..., None, :
        ]
        scores = F.leaky_relu(sums, slope)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v

    got, found = gradients(attention, (q, k, v), grad)
    want, slopes = gradients(dense, (q, k, v), grad)
    assert error(got, want) <= 1e-12
    assert all(error(x, y) <= 1e-11 for x, y in zip(found, slopes, strict=True))


def test_all_queries_rank_the_keys_alike():
    q, k, _ = qkv()
    attention = module("gat-additive", "NS")
    weights = attention(q, k, torch.eye(19).double().expand(2, 3, -1, -1))
    order = weights.argsort(-1)
    assert (order == order[:, :, :1]).all()
    attention.vectors.data[0] *= 7
    again = attention(q, k, torch.eye(19).double().expand(2, 3, -1, -1))
    assert not torch.allclose(again, weights)
    assert torch.equal(again.argsort(-1), order)
    softmax = module("softmax", "NS")(q, k, torch.eye(19).double().expand(2, 3, -1, -1))
    assert (softmax.argsort(-1) != softmax.argsort(-1)[:, :, :1]).any()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_vectors_of_zero_give_the_mean(pattern):
    q, k, v = tokens(pattern)
    attention = module("gat-additive", pattern)
    attention.vectors.data.zero_()
    mask = visible(attention.pattern, q.shape[2], 19, None)
    seen = torch.ones(q.shape[2], 19).double() if mask is None else mask.double()
    assert error(attention(q, k, v), seen / seen.sum(-1, keepdim=True) @ v) <= 1e-12


def test_relu_on_the_output():
    q, k, v = qkv()
    plain, ginar = module("gat-additive", "NS"), module("gat-additive", "NS", relu=True)
    ginar.load_state_dict(plain.state_dict())
    assert error(ginar(q, k, v), plain(q, k, v).relu()) <= 1e-12
    assert error(ginar.reference(q, k, v), plain(q, k, v).relu()) <= 1e-12


def test_large_scores_do_not_overflow():
    q, k, v = (1e3 * x.float() for x in qkv())
    attention = module("gat-additive", "CS").float()
    want = attention.double().reference(q.double(), k.double(), v.double())
    assert error(attention.float()(q, k, v), want) <= 1e-3


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_decoding_keeps_a_score_of_every_key(pattern):
    q, k, v = qkv()
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[1, :3] = False
    attention = module("gat-additive", pattern)
    source = 19 if pattern == "CC" else 5
    want = attention(q, k, v, AttentionContext(key_mask=mask))
    prompt = AttentionContext(key_mask=mask[:, :source])
    state = attention.prefill(k[:, :, :source], v[:, :, :source], prompt)
    for t in range(0 if pattern == "CC" else 5, 19):
        own = slice(t, t + 1)
        new = (None, None) if pattern == "CC" else (k[:, :, own], v[:, :, own])
        row, state = attention.step(q[:, :, own], *new, state)
        assert error(row, want[:, :, own]) <= 1e-12
    kept = state.tensors["k"][0].numel() + state.tensors["v"][0].numel()
    assert kept == attention.state_size(19)


def test_slopes_are_positive():
    with pytest.raises(OptionError, match="slope"):
        module("gat-additive", "NS", slope=0.0)
