"""Relatives on the machinery of Local Linear Attention: Parallax and local polynomials."""

import math

import pytest
import torch

import cab
from attentions.lla.basis import Basis
from attentions.lla.probe import local_probe
from attentions.lla.reference import local_linear_closed_form
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv, visible_keys


def probed(q, k, v, x, causal, scale=0.4):
    """Softmax attention corrected along x, written out."""
    scores = scale * q @ k.mT
    mask = visible_keys(q, k, None, causal)
    p = scores.masked_fill(~mask, -math.inf).softmax(-1)
    p = p.masked_fill(~mask, 0.0).nan_to_num(0.0)
    a = ((k[:, None] - (p @ k)[:, :, None]) * x[:, :, None]).sum(-1)
    return (p * (1 + a)) @ v


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length_q", "length_k"), [(19, 19), (5, 17), (1, 3)])
def test_a_probe_and_its_gradients(causal, length_q, length_k):
    shapes = ((3, length_q, 5), (3, length_k, 5), (3, length_k, 4), (3, length_q, 5))
    inputs = draw(*shapes)
    (g,) = draw((3, length_q, 4), seed=1)
    out, grads = gradients(lambda *x: local_probe(*x, scale=0.4, causal=causal), inputs, g)
    want, want_grads = gradients(lambda *x: probed(*x, causal), inputs, g)
    assert error(out, want) <= 1e-12
    for got, expected in zip(grads, want_grads, strict=True):
        assert error(got, expected) <= 1e-9
    small = [x[:1, :4].requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: local_probe(*x, scale=0.4, causal=causal), small)


def test_lla_is_the_probe_that_solves_its_system():
    q, k, v = draw((1, 9, 5), (1, 20, 5), (1, 20, 4))
    p = (0.4 * q @ k.mT).softmax(-1)
    spread = k[:, None] - (p @ k)[:, :, None]
    system = torch.einsum("nij,nijd,nije->nide", p, spread, spread) + 0.1 * torch.eye(5).double()
    x = torch.linalg.solve(system, q - p @ k)
    ridge = torch.tensor([0.1], dtype=torch.float64)
    want = local_linear_closed_form(q[None], k[None], v[None], None, ridge, 0.4)[0]
    assert error(local_probe(q, k, v, x, scale=0.4, causal=False), want) <= 1e-12


@pytest.mark.parametrize("pattern", list(Pattern))
def test_parallax_with_a_zero_probe_is_softmax(pattern):
    q, k, v = qkv()
    (x,) = draw((2, 19, 15), seed=1)
    parallax = module("parallax", pattern)
    context = cab.AttentionContext(query_input=x)
    softmax = module("softmax", pattern)(q, k, v)
    assert error(parallax(q, k, v, context), softmax) > 1e-3
    torch.nn.init.zeros_(parallax.probe.weight)
    assert error(parallax(q, k, v, context), softmax) <= 1e-12


def test_parallax_without_the_layer_input_says_what_it_needs():
    with pytest.raises(ValueError, match="query_input"):
        module("parallax", "CS")(*qkv())


def test_the_basis_counts_each_monomial_once():
    for dim in (1, 3, 16):
        line, quadratic = Basis(dim), Basis(dim, dim)
        assert (line.size, line.products) == (dim, math.comb(dim + 2, 2) - 1)
        assert quadratic.size == math.comb(dim + 2, 2) - 1
        assert quadratic.products == math.comb(dim + 4, 4) - 1


@pytest.mark.parametrize("curved", [0, 1, 2, 4])
def test_products_of_regressors_are_those_of_the_basis(curved):
    (k,) = draw((2, 7, 4))
    basis = Basis(4, curved)
    f = basis.lift(k)
    products = k.new_empty(2, basis.products, 7)
    basis.fill_(products, k.transpose(1, 2))
    square = k.new_zeros(2, basis.size**2, 7)
    scales = k.new_tensor(basis.half_scale)[:, None]
    square[:, basis.half] = products[:, basis.half_product] * scales
    want = (f[..., :, None] * f[..., None, :]).permute(0, 2, 3, 1)
    lower = torch.ones(basis.size, basis.size).tril().bool()
    got = square.unflatten(1, (basis.size, basis.size))
    assert torch.allclose(got[:, lower], want[:, lower], atol=1e-12)


def test_squares_of_regressors_are_those_of_the_full_arrays():
    # So that a ridge on their coefficients does not depend on the coordinate system.
    (k,) = draw((7, 4))
    f = Basis(4, 4).lift(k)
    assert torch.allclose(f[:, 4:].square().sum(-1), k.square().sum(-1) ** 2)


@pytest.mark.parametrize("curved", [0, 1, 2])
@pytest.mark.parametrize("pattern", ["CS", "NC"])
def test_local_polynomial_gradients_are_those_of_the_definition(pattern, curved):
    polynomial = module("local-polynomial", pattern, dim=3, ridge=0.2, curved=curved)
    length_q = 9 if pattern == "NC" else 12
    leaves = [x.requires_grad_() for x in qkv(length_q, 12, dim=3)]
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 4:7] = False
    mask[1] = False
    context = cab.AttentionContext(key_mask=mask)
    (g,) = draw((2, 3, length_q, 3), seed=2)
    wrt = [*leaves, polynomial.penalty.raw]
    for masked in (None, context):
        got = torch.autograd.grad(polynomial(*leaves, masked), wrt, g)
        want = torch.autograd.grad(polynomial.reference(*leaves, masked), wrt, g)
        for a, b in zip(got, want, strict=True):
            assert error(a, b) <= 1e-9


def test_local_polynomial_reproduces_quadratic_values():
    q, k, _ = qkv(length_k=60, dim=3)
    slope, curvature, shift = draw((3, 2), (3, 3, 2), (2,), seed=1)

    def target(x):
        return shift + x @ slope + torch.einsum("...a,abc,...b->...c", x, curvature, x)

    options = {"dim": 3, "ridge": 1e-9, "learn_ridge": False}
    quadratic = module("local-polynomial", "NC", **options)(q, k, target(k))
    assert error(quadratic, target(q)) <= 1e-5
    assert error(module("lla", "NC", **options)(q, k, target(k)), target(q)) > 1e-2


def test_local_polynomial_tends_to_softmax_and_holds_in_float32_away_from_the_origin():
    q, k, v = qkv(dim=3)
    softmax = module("softmax", "NC", dim=3)(q, k, v)
    assert error(module("local-polynomial", "NC", dim=3, ridge=1e7)(q, k, v), softmax) <= 1e-4
    polynomial = module("local-polynomial", "NC", dim=3, ridge=0.1)
    # Fourth powers of 30 would leave float32 no digit; what is lost is lost to sharp weights.
    far = [(x + 30).float() for x in (q, k)] + [v.float()]
    single = polynomial.float()(*far)
    assert error(single, polynomial.double().reference(*(x.double() for x in far))) <= 1e-3


def test_local_polynomial_refuses_more_terms_than_it_can_solve_for():
    with pytest.raises(NotImplementedError, match="option curved"):
        module("local-polynomial", "CS", dim=32, curved=0)
    q, k, v = qkv(dim=32)
    polynomial = module("local-polynomial", "CS", dim=32)
    assert error(polynomial(q, k, v), polynomial.reference(q, k, v)) <= 1e-9


def test_parallax_of_low_rank():
    full, low = module("parallax", "CS"), module("parallax", "CS", rank=2)
    assert sum(p.numel() for p in full.parameters()) == 15 * 15
    assert sum(p.numel() for p in low.parameters()) == 2 * 2 * 15
    (x,) = draw((2, 19, 15), seed=1)
    context = cab.AttentionContext(query_input=x)
    assert error(low(*qkv(), context), low.reference(*qkv(), context)) <= 1e-12
