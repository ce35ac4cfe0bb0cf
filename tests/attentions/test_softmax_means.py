"""Softmax-weighted means, which several mechanisms of linear cost are made of."""

import torch

from attentions.shared.softmax_means import softmax_means
from tests.attentions.cases import draw, error, gradients


def plain(logits, values, mask):
    logits = logits.masked_fill(~mask, -torch.inf)
    return logits.softmax(-1) @ values, logits.logsumexp(-1)


def test_means_masses_and_their_gradients():
    logits, values = draw((2, 3, 4, 9), (2, 3, 9, 5))
    grad_means, grad_mass = draw((2, 3, 4, 5), (2, 3, 4), seed=1)
    mask = torch.rand(2, 1, 1, 9, generator=torch.Generator().manual_seed(2)) > 0.3

    def run(function):
        leaves = [x.clone().requires_grad_() for x in (logits * 30, values)]
        means, mass = function(*leaves, mask)
        return means, mass, *torch.autograd.grad((means, mass), leaves, (grad_means, grad_mass))

    for got, want in zip(run(softmax_means), run(plain), strict=True):
        assert error(got, want) <= 1e-12
    small = [x[:1, :1].clone().requires_grad_() for x in (logits, values)]
    assert torch.autograd.gradcheck(softmax_means, small)


def test_a_row_that_counts_nothing():
    logits, values = draw((1, 1, 2, 4), (1, 1, 4, 3))
    mask = torch.tensor([[True] * 4, [False] * 4])
    means, mass = softmax_means(logits, values, mask)
    assert means[0, 0, 1].tolist() == [0.0] * 3
    assert mass[0, 0, 1] == -torch.inf

    def seen(*x):
        return softmax_means(*x, mask)[0]

    out, grads = gradients(seen, (logits, values), torch.ones(1, 1, 2, 3).double())
    assert all(g.isfinite().all() for g in grads)
    assert grads[0][0, 0, 1].tolist() == [0.0] * 4
    assert out.isfinite().all()


def test_far_apart_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    means, mass = softmax_means(logits, torch.eye(3))
    assert means.tolist() == [[1.0, 0.0, 0.0]]
    assert mass.tolist() == [1e4]
