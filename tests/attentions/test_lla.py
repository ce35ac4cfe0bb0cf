"""Local Linear Attention in torch: against its definition, in its limits, and under attack."""

import mpmath as mp
import pytest
import torch

from attentions.lla.reference import local_linear_closed_form
from attentions.lla.solvers import Budget
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.lla_cases import SOLVERS, attend, definition, padding, problem

ADVERSARIAL = {
    "random": lambda q, k, v: (q, k, v),
    "collinear keys": lambda q, k, v: (q, k[..., :1] * k[:, :1], v),
    "equal keys": lambda q, k, v: (q, k[:, :1].expand_as(k).contiguous(), v),
    "pairs of keys": lambda q, k, v: (q, k[:, torch.arange(k.shape[1]) // 2], v),
    "one key": lambda q, k, v: (q, k[:, :1], v[:, :1]),
    "two keys": lambda q, k, v: (q, k[:, :2], v[:, :2]),
    "far from zero": lambda q, k, v: (q + 30, k + 30, v + 30),
    "huge values": lambda q, k, v: (q, k, v * 1e6),
    "huge queries": lambda q, k, v: (q * 1e3, k * 1e-2, v),
    "an attention sink": lambda q, k, v: (q, k.index_fill(1, torch.tensor([0]), 50.0), v),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_the_closed_form_is_the_definition(ridge, masked, causal, seed):
    q, k, v, ridges = problem(33, 40, 8, ridge=ridge, seed=seed)
    mask = padding(3, 40) if masked else None
    call = {"scale": 0.4, "causal": causal}
    want = definition(q, k, v, ridges, mask, **call)
    closed = definition(q, k, v, ridges, mask, form=local_linear_closed_form, **call)
    assert error(closed, want) <= 1e-12
    for solver in SOLVERS:
        assert error(attend(q, k, v, ridges, mask, solver=solver, **call), want) <= 1e-12


def in_fifty_digits(q, k, v, ridge, scale, causal):
    """The closed form of one sequence, (L, D) inputs and a number; rows that see no key stay 0."""
    mp.mp.dps = 50
    out = torch.zeros(q.shape[0], v.shape[1], dtype=torch.float64)
    dims = range(k.shape[1])
    for i, row in enumerate(q.tolist()):
        seen = i + 1 + k.shape[0] - q.shape[0] if causal else k.shape[0]
        keys = [[mp.mpf(x) for x in key] for key in k[: max(seen, 0)].tolist()]
        if not keys:
            continue
        w = [mp.exp(mp.mpf(scale) * mp.fdot(row, key)) for key in keys]
        p = [x / mp.fsum(w) for x in w]
        mean = [mp.fdot(p, [key[d] for key in keys]) for d in dims]
        spread = [[key[d] - mean[d] for d in dims] for key in keys]
        system = mp.matrix(len(mean), len(mean))
        for d in dims:
            for e in dims:
                products = [x[d] * x[e] for x in spread]
                system[d, e] = mp.fdot(p, products) + (mp.mpf(ridge) if d == e else 0)
        x = mp.lu_solve(system, mp.matrix([row[d] - mean[d] for d in dims]))
        weights = [a * (1 + mp.fdot(s, x)) for a, s in zip(p, spread, strict=True)]
        for c in range(v.shape[1]):
            out[i, c] = float(mp.fdot(weights, v[: len(keys), c].tolist()))
    return out


@pytest.mark.parametrize("ridge", [1e-3, 0.1])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_inputs(name, ridge):
    q, k, v, _ = problem(5, 9, 3, 2, n=1, seed=1)
    q, k, v = ADVERSARIAL[name](q, k, v)
    ridges = torch.tensor([ridge], dtype=torch.float64)
    # A sink's logits are near 100 here: what is left of the other keys' weights has few digits.
    bar = 1e-7 if name == "an attention sink" else 1e-12
    for causal in (False, True):
        want = in_fifty_digits(q[0], k[0], v[0], ridge, 0.4, causal)[None]
        for solver in SOLVERS:
            out = attend(q, k, v, ridges, scale=0.4, causal=causal, solver=solver)
            assert error(out, want) <= bar


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length_q", "length_k"), [(19, 19), (9, 23), (23, 9), (1, 7), (5, 1)])
def test_output_and_gradients_are_those_of_the_definition(
    solver, masked, causal, length_q, length_k
):
    inputs = problem(length_q, length_k, seed=2)
    mask = padding(3, length_k) if masked else None
    (g,) = draw((3, length_q, 4), seed=3)
    call = {"scale": 0.4, "causal": causal}
    out, grads = gradients(lambda *x: attend(*x, mask, solver=solver, **call), inputs, g)
    want, want_grads = gradients(lambda *x: definition(*x, mask, **call), inputs, g)
    assert error(out, want) <= 1e-12
    for got, expected in zip(grads, want_grads, strict=True):
        assert error(got, expected) <= 1e-9
    if masked:
        assert (out[-1] == 0).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_gradients_under_attack(solver, name):
    q, k, v, ridge = problem(seed=4, ridge=1e-2)
    inputs = (*ADVERSARIAL[name](q, k, v), ridge)
    (g,) = draw((3, 19, 4), seed=5)
    call = {"scale": 0.4, "causal": name != "one key"}
    if name == "two keys":
        call["causal"] = False
    _, grads = gradients(lambda *x: attend(*x, solver=solver, **call), inputs, g)
    _, want = gradients(lambda *x: definition(*x, **call), inputs, g)
    for got, expected in zip(grads, want, strict=True):
        assert error(got, expected) <= 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_against_finite_differences(solver, causal, masked):
    q, k, v, ridge = problem(6, 6, 3, 2, n=2, seed=6)
    leaves = [x.requires_grad_() for x in (q, k, v, ridge)]
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2:4] = False
    mask[1] = False
    mask = mask if masked else None
    assert torch.autograd.gradcheck(
        lambda *x: attend(*x, mask, scale=0.7, causal=causal, solver=solver), leaves
    )


def test_float32_far_from_the_origin_is_as_good_as_near_it():
    for offset in (0.0, 30.0):
        q, k, v, ridge = problem(200, 200, 16, 16, seed=7)
        (g,) = draw((3, 200, 16), seed=8)
        singles = [x.float() for x in (q + offset, k + offset, v, ridge)]
        doubles = [x.double() for x in singles]
        call = {"scale": 0.25, "causal": True}
        for solver in SOLVERS:
            budget = Budget(100, 1e-6)

            def run(*x, solver=solver, budget=budget, call=call):
                return attend(*x, solver=solver, budget=budget, **call)

            out, grads = gradients(run, singles, g)
            form = {"form": local_linear_closed_form}
            want, want_grads = gradients(
                lambda *x, call=call, form=form: definition(*x, **form, **call), doubles, g
            )
            assert error(out, want) <= 1e-4
            for got, expected in zip(grads, want_grads, strict=True):
                assert error(got, expected) <= 1e-3


def test_bfloat16_at_a_small_ridge_is_solved_in_float32():
    # The inputs are rounded, the solve is not: in bfloat16 it would be off by more than its size.
    q, k, v, ridge = problem(200, 200, 32, 32, seed=9, ridge=1e-2)
    halves = [x.bfloat16() for x in (q, k, v)]
    call = {"scale": 32**-0.5, "causal": True}
    want = definition(*(x.double() for x in halves), ridge, form=local_linear_closed_form, **call)
    for solver in SOLVERS:
        out = attend(*halves, ridge.float(), solver=solver, budget=Budget(200, 1e-6), **call)
        assert out.dtype == torch.bfloat16
        assert error(out, want) <= 5e-3


@pytest.mark.parametrize("pattern", list(Pattern))
def test_it_tends_to_softmax_as_the_ridge_grows(pattern):
    q, k, v = qkv()
    softmax = module("softmax", pattern)(q, k, v)
    errors = [
        (module("lla", pattern, ridge=ridge)(q, k, v) - softmax).abs().max().item()
        for ridge in (1e2, 1e4, 1e6)
    ]
    # The slope falls off as 1 / ridge.
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(100, rel=0.2)


def test_it_reproduces_values_that_are_affine_in_the_keys():
    q, k, _ = qkv(length_k=40)
    slope, shift = draw((5, 4), (4,), seed=1)
    v = k @ slope + shift
    lla = module("lla", "NC", ridge=1e-10, learn_ridge=False)
    assert torch.allclose(lla(q, k, v), q @ slope + shift, atol=1e-6)
    softmax = module("softmax", "NC")(q, k, v)
    assert (softmax - (q @ slope + shift)).abs().max() > 0.5


def test_without_a_kernel_it_is_affine_ridge_regression():
    q, k, v = qkv(length_k=40)
    ridge = 0.3
    lla = module("lla", "NC", scale=0.0, ridge=ridge, learn_ridge=False)
    mean_k, mean_v = k.mean(-2, keepdim=True), v.mean(-2, keepdim=True)
    gram = (k - mean_k).transpose(-1, -2) @ (k - mean_k) / 40 + ridge * torch.eye(5).double()
    cross = (k - mean_k).transpose(-1, -2) @ (v - mean_v) / 40
    want = mean_v + (q - mean_k) @ torch.linalg.solve(gram, cross)
    assert torch.allclose(lla(q, k, v), want, atol=1e-10)


def test_the_ridge_is_learned_and_starts_where_asked():
    for ridge in (1e-3, 0.5, 30.0):
        lla = module("lla", "CS", ridge=ridge)
        assert torch.allclose(lla.ridge, torch.full((3,), ridge).double(), rtol=1e-5)
        assert [g["weight_decay"] for g in lla.parameter_groups()] == [0.0]
    assert not list(module("lla", "CS", learn_ridge=False).parameters())


def test_qk_norm_ignores_the_length_of_queries_and_keys():
    q, k, v = qkv()
    lla = module("lla", "NS", qk_norm=True)
    assert torch.allclose(lla(q, k, v), lla(3 * q, 0.2 * k, v), atol=1e-5)
