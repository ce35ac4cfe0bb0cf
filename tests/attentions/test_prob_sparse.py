"""ProbSparse attention: who gets softmax, and that sampling is a function of the tokens alone."""

import math

import pytest
import torch

import cab
from attentions.prob_sparse import sampled_products, sampled_ranks
from benchmarks.attentions.plain import prob_sparse as plain
from tests.attentions.cases import draw, error, module, qkv


def counted(tokens, factor=5):
    return min(tokens, max(1, factor * math.ceil(math.log(tokens)))) if tokens > 1 else 1


@pytest.mark.parametrize("length", [1, 2, 19, 70])
def test_equals_the_plain_form(length):
    q, k, v = qkv(length, length)
    attention = module("prob-sparse", "NS", factor=2)
    assert error(attention(q, k, v), plain.attend(attention, q, k, v)) <= 1e-9


def test_a_large_factor_is_softmax():
    q, k, v = qkv()
    assert (
        error(module("prob-sparse", "NS", factor=10)(q, k, v), module("softmax", "NS")(q, k, v))
        <= 1e-12
    )


def test_rows_are_softmax_rows_or_the_mean():
    q, k, v = qkv(200, 200)
    out = module("prob-sparse", "NS", factor=2)(q, k, v)
    softmax, mean = module("softmax", "NS")(q, k, v), v.mean(-2, keepdim=True)
    chosen = (out - softmax).abs().amax(-1) < 1e-12
    assert ((out - mean).abs().amax(-1)[~chosen] < 1e-12).all()
    assert (chosen.sum(-1) == counted(200, 2)).all()


def test_the_chosen_queries_have_the_largest_measure():
    q, k, v = qkv(60, 60)
    attention = module("prob-sparse", "NS", factor=1)
    out, mean = attention(q, k, v), v.mean(-2, keepdim=True)
    own = k[:, :, sampled_ranks(0, 60, counted(60, 1), k.device)]
    products = (q[:, :, :, None] * own).sum(-1)
    measure = products.amax(-1) - products.sum(-1) / 60
    chosen = (out - mean).abs().amax(-1) > 1e-12
    for b in range(2):
        for h in range(3):
            assert measure[b, h][chosen[b, h]].min() >= measure[b, h][~chosen[b, h]].max()


def test_padding_is_removal_whatever_the_lengths_of_the_rows():
    q, k, v = draw(*[(4, 3, 50, 5)] * 3)
    lengths = (50, 31, 1, 0)
    mask = torch.arange(50) < torch.tensor(lengths)[:, None]
    attention = module("prob-sparse", "NS", factor=1)
    out = attention(q, k, v, cab.AttentionContext(query_mask=mask, key_mask=mask))
    for row, n in enumerate(lengths[:3]):
        short = (x[row : row + 1, :, :n] for x in (q, k, v))
        assert error(out[row : row + 1, :, :n], attention(*short)) <= 1e-12
    assert torch.equal(out[3], torch.zeros_like(out[3]))


def test_samples_are_uniform_and_fixed():
    ranks = sampled_ranks(0, 500, 400, torch.device("cpu"))
    assert torch.equal(ranks, sampled_ranks(0, 500, 400, torch.device("cpu")))
    assert not torch.equal(ranks, sampled_ranks(1, 500, 400, torch.device("cpu")))
    counts = ranks.flatten().bincount(minlength=500).double()
    expected = ranks.numel() / 500
    chi_square = ((counts - expected).square() / expected).sum().item()
    assert abs(chi_square - 499) < 5 * math.sqrt(2 * 499)
    # Rows are not copies of each other.
    assert len({tuple(row.tolist()) for row in ranks}) == 500


def test_sampled_products_with_keys_that_are_drawn_twice():
    q, k = draw((3, 9, 5), (3, 9, 5))
    samples = torch.tensor([[4, 0, 4], [8, 8, 8], [0, 1, 2]]).repeat(3, 1)
    want = (q[:, :, None] * k[:, samples]).sum(-1)
    assert error(sampled_products(q, k, samples), want) <= 1e-12


def test_gradients_flow_through_the_chosen_rows():
    q, k, v = (x.requires_grad_() for x in qkv(40, 40))
    attention = module("prob-sparse", "NS", factor=1)
    out = attention(q, k, v)
    want = attention.reference(q, k, v)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).double()
    for got, expected in zip(
        torch.autograd.grad(out, (q, k, v), g), torch.autograd.grad(want, (q, k, v), g), strict=True
    ):
        assert error(got, expected) <= 1e-9


def test_low_precision():
    q, k, v = (x.bfloat16() for x in qkv(64, 64))
    out = module("prob-sparse", "NS")(q, k, v)
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()


def test_density_is_the_rows_of_softmax_and_a_mean_for_each_other_query():
    q, k = draw(*[(2, 3, 50, 5)] * 2)
    mask = torch.arange(50) < torch.tensor([50, 20])[:, None]
    attention = module("prob-sparse", "NS", factor=2)
    found = attention.density(q, k, cab.AttentionContext(query_mask=mask, key_mask=mask))
    for row, n in enumerate((50, 20)):
        u = counted(n, 2)
        assert found[row].tolist() == pytest.approx([(u * n + (n - u)) / n**2] * 3)
    mask[1] = False
    found = attention.density(q, k, cab.AttentionContext(query_mask=mask, key_mask=mask))
    assert found[1].isnan().all()


@pytest.mark.parametrize("density", [0.1, 0.25, 1.0])
def test_as_many_queries_get_softmax_as_the_option_density_says(density):
    q, k, v = qkv(60, 60)
    attention = module("prob-sparse", "NS", density=density)
    out = attention(q, k, v)
    assert error(out, attention.reference(q, k, v)) <= 1e-12
    softmax = module("softmax", "NS")(q, k, v)
    rows = ((out - softmax).abs().amax(-1) < 1e-12).sum(-1)
    assert (rows == round(density * 60)).all()
    assert (attention.density(q, k) - density).abs().max() <= 1 / 60
    with pytest.raises(ValueError, match="at most 1"):
        cab.attention("prob-sparse", pattern="NS", heads=1, head_dim=4, density=1.5)
