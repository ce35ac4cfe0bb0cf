"""Entmax attention: the maps of the entmax package, softmax and sparsemax as its ends, and a
temperature by its formula.
"""

import entmax as upstream
import pytest
import torch

from attentions.shared.entmax import entmax, plain_entmax
from attentions.shared.masks import visible
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG = 19


def tokens(pattern):
    """q, k, v and a context with the layer's input at queries."""
    q, k, v = qkv(13 if pattern.endswith("C") else LONG, LONG)
    (x,) = draw((2, q.shape[2], 15), seed=5)
    return q, k, v, AttentionContext(query_input=x)


def theirs(alpha):
    if alpha == 1.5:
        return lambda z: upstream.entmax15(z, dim=-1)
    if alpha == 2:
        return lambda z: upstream.sparsemax(z, dim=-1)
    return lambda z: upstream.entmax_bisect(z, alpha, dim=-1, n_iter=60)


@pytest.mark.parametrize("function", [entmax, plain_entmax])
@pytest.mark.parametrize("alpha", [1.1, 1.3, 1.5, 1.9, 2.0])
@pytest.mark.parametrize("scale", [0.01, 1.0, 8.0, 1000.0])
def test_the_maps_of_the_entmax_package(function, alpha, scale):
    scores, grad = draw((7, 150), (7, 150))
    scores = scale * scores
    scores[3, 20:] = -torch.inf
    scores[4] = scores[4, 0]
    out, (found,) = gradients(lambda z: function(z, alpha), (scores,), grad)
    want_out, (want,) = gradients(theirs(alpha), (scores,), grad)
    assert error(out, want_out) <= 1e-9
    assert error(found, want.nan_to_num(0.0)) <= 1e-7


@pytest.mark.parametrize("alpha", [1.2, 1.5, 2.0])
def test_weights_add_up_to_one_in_float32_too(alpha):
    (scores,) = draw((50, 3000))
    for scale in (0.0, 1.0, 100.0):
        weights = entmax((scale * scores).float(), alpha)
        assert (weights.sum(-1) - 1).abs().max() <= 2e-5
        assert weights.min() >= 0


def test_a_row_that_sees_nothing_has_no_weights():
    scores = torch.full((2, 4), -torch.inf, dtype=torch.float64)
    scores[1, 2] = 3.0
    for alpha in (1.0, 1.5, 2.0):
        for function in (entmax, plain_entmax):
            leaf = scores.clone().requires_grad_()
            weights = function(leaf, alpha)
            assert torch.equal(weights, torch.tensor([[0.0] * 4, [0, 0, 1, 0]]).double())
            weights.sum().backward()
            assert leaf.grad.isfinite().all() or alpha == 1


@pytest.mark.parametrize("alpha", [1.3, 1.5])
def test_derivatives_of_both_orders(alpha):
    (scores,) = draw((3, 6))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: entmax(z, alpha), scores)
    assert torch.autograd.gradgradcheck(lambda z: entmax(z, alpha), scores)
    assert torch.autograd.gradgradcheck(lambda z: plain_entmax(z, alpha), scores)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_alpha_one_is_softmax(pattern):
    q, k, v, _ = tokens(pattern)
    attention = module("asentmax", pattern, alpha=1.0, temperature="none")
    assert error(attention(q, k, v), module("softmax", pattern)(q, k, v)) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_temperature_by_hand(pattern):
    q, k, v, context = tokens(pattern)
    attention = module("asentmax", pattern, delta=0.7)
    row, head = 8, 1
    seen = k[1, head, : row + 1] if pattern == "CS" else k[1, head]
    x = context.query_input[1, row]
    beta = (1 + (attention.beta.weight[head] @ x).exp()).log()
    gamma = 2 * (attention.gamma.weight[head] @ x).tanh()
    factor = 0.7 + beta * torch.tensor(len(seen) + 1.0).double().log() ** gamma
    weights = upstream.entmax15(factor * (seen @ q[1, head, row]) / 5**0.5, dim=-1)
    want = weights @ v[1, head, : len(seen)]
    assert error(attention(q, k, v, context)[1, head, row], want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_beta_of_zero_is_entmax_of_scores(pattern):
    q, k, v, _ = tokens(pattern)
    attention = module("asentmax", pattern, temperature="learned")
    attention.factor.data.zero_()
    mask = visible(attention.pattern, q.shape[2], LONG, None)
    scores = q @ k.mT / 5**0.5
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    want = upstream.entmax15(scores, dim=-1) @ v
    assert error(attention(q, k, v), want) <= 1e-12
    assert error(module("asentmax", pattern, temperature="none")(q, k, v), want) <= 1e-12


def test_sharp_scores_leave_most_keys_without_any_weight():
    q, k, _, context = tokens("NS")
    v = torch.eye(LONG, dtype=torch.float64).expand(2, 3, -1, -1)
    weights = module("asentmax", "NS")(5 * q, k, v, context)
    assert (weights == 0).double().mean() > 0.5
    assert error(weights.sum(-1), torch.ones(2, 3, LONG).double()) <= 1e-12


def test_the_temperature_learns_from_all_of_its_layer_input():
    q, k, v, context = tokens("CS")
    attention = module("asentmax", "CS")
    attention(q, k, v, context).square().sum().backward()
    assert attention.beta.weight.grad.abs().min() > 0
    assert attention.gamma.weight.grad.abs().min() > 0


def test_without_layer_inputs_it_says_what_to_give():
    with pytest.raises(ValueError, match="AttentionContext"):
        module("asentmax", "CS")(*qkv(LONG, LONG))
