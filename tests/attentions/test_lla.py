"""Local Linear Attention in torch: against its definition, in its limits, and under attack."""

import math
import warnings

import mpmath as mp
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attentions.lla import cholesky, decoding, solvers, tiles
from attentions.lla.decoding import decode_local_linear
from attentions.lla.reference import local_linear_closed_form, local_linear_regression
from attentions.lla.residual import ResidualMonitor, ResidualWarning
from attentions.lla.solvers import Budget, choose_solver, local_linear_attention
from cab.errors import OptionError
from cab.patterns import Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv, visible_keys

SOLVERS = ("cholesky", "cg")
TIGHT = Budget(iterations=300, tolerance=1e-13)


def definition(q, k, v, ridge, key_mask=None, *, scale, causal, form=local_linear_regression):
    """Of (N, L, D) inputs with a ridge each."""
    mask = visible_keys(q, k, key_mask, causal)
    return form(q[None], k[None], v[None], mask[None], ridge, scale)[0]


def attend(
    q, k, v, ridge, key_mask=None, *, scale, causal, solver="cholesky", budget=TIGHT, monitor=None
):
    monitor = monitor or ResidualMonitor("")
    return local_linear_attention(
        q, k, v, ridge, key_mask, scale=scale, causal=causal, solver=solver, budget=budget,
        monitor=monitor,
    )  # fmt: skip


def problem(length_q=19, length_k=23, dim=5, dim_v=4, n=3, seed=0, ridge=0.1):
    q, k, v = draw((n, length_q, dim), (n, length_k, dim), (n, length_k, dim_v), seed=seed)
    return q, k, v, torch.linspace(ridge, 2 * ridge, n, dtype=torch.float64)


def padding(n, length_k):
    """Scattered; the last sequence has no valid key, the one before it a single one."""
    mask = (torch.arange(length_k) % 3 != 1).repeat(n, 1)
    mask[-1] = False
    mask[-2, 1:] = False
    return mask


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


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("pattern", ["CS", "NC"])
def test_tiles_and_chunks_of_keys_change_nothing(monkeypatch, solver, pattern):
    monkeypatch.setattr(tiles, "_BLOCK_ROWS", 4)
    monkeypatch.setattr(tiles, "_TILE_WEIGHTS", 64)
    monkeypatch.setattr(cholesky, "_CHUNK", 20 * 7)  # seven keys of a sequence at a time
    lla = module("lla", pattern, ridge=0.05, solver=solver, tolerance=1e-13, iterations=200)
    leaves = [x.requires_grad_() for x in qkv(19, 33 if pattern == "NC" else 19)]
    (gradient,) = draw((2, 3, 19, 5), seed=3)
    wrt = [*leaves, lla.penalty.raw]
    got = torch.autograd.grad(lla(*leaves), wrt, gradient)
    want = torch.autograd.grad(lla.reference(*leaves), wrt, gradient)
    for a, b in zip(got, want, strict=True):
        assert error(a, b) <= 1e-9


class Allocations(TorchDispatchMode):
    """Records the largest tensor that any operation hands out."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.largest = max(self.largest, x.untyped_storage().size() // x.element_size())
        return out


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_tensor_grows_with_n_d_d_or_n_n(monkeypatch, solver):
    monkeypatch.setattr(tiles, "_TILE_WEIGHTS", 1 << 12)
    monkeypatch.setattr(tiles, "_TILE_SYSTEMS", 1 << 12)
    monkeypatch.setattr(tiles, "_BLOCK_ROWS", 16)
    monkeypatch.setattr(cholesky, "_CHUNK", 1 << 12)
    dim = 16
    largest = []
    for length in (256, 512):
        q, k, v, ridge = (x.float() for x in problem(length, length, dim, dim, n=2))
        leaves = [x.requires_grad_() for x in (q, k, v, ridge)]
        budget = Budget(8, 1e-2)
        monitor = ResidualMonitor("")
        with Allocations() as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResidualWarning)  # eight iterations may be too few
            out = attend(
                *leaves, scale=0.25, causal=True, solver=solver, budget=budget, monitor=monitor
            )
            out.sum().backward()
        largest.append(seen.largest)
        # Two sequences' inputs, or one tile of rows by keys.
        assert seen.largest <= max(2 * length * dim, 16 * length)
    assert largest[1] <= 2 * largest[0]


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


@pytest.mark.parametrize(
    "options",
    [{"ridge": -1.0}, {"ridge": 0.0}, {"ridge": math.inf}, {"iterations": 0}, {"solver": "lu"}],
)
def test_options_that_make_no_sense_are_refused(options):
    (name,) = options
    with pytest.raises(OptionError, match=name):
        module("lla", "CS", **options)


def test_qk_norm_ignores_the_length_of_queries_and_keys():
    q, k, v = qkv()
    lla = module("lla", "NS", qk_norm=True)
    assert torch.allclose(lla(q, k, v), lla(3 * q, 0.2 * k, v), atol=1e-5)


def test_too_few_iterations_are_reported():
    q, k, v = qkv(40, 40)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    enough = module("lla", "CS", ridge=1e-2, solver="cg", iterations=64)
    enough(*leaves).sum().backward()
    assert enough.monitor.last <= 1e-5

    short = module("lla", "CS", ridge=1e-2, solver="cg", iterations=2)
    with pytest.warns(ResidualWarning, match=r"relative residual of .*raise the options") as seen:
        out = short(*leaves)
    assert len(seen) == 1
    # What it reports is the residual of what it returns: the weights sum to one in any case.
    assert short.monitor.last > 1e-2
    ones = torch.ones_like(v)
    assert torch.allclose(short(q, k, ones), ones, atol=1e-12)
    out.sum().backward()  # warned once is enough
    assert (out - enough(*leaves)).abs().max() > 1e-3


def test_the_reported_residual_is_the_true_one(monkeypatch):
    q, k, v, ridge = problem(7, 30, 8, 4, n=1, seed=10, ridge=1e-2)
    monitor = ResidualMonitor("")
    solved = {}
    original = solvers.ConjugateGradientSolver.system

    def spy(self, t, p):
        system = original(self, t, p)
        solve = system.solve

        def keep(right):
            x = solve(right)
            solved.update(x=x, right=right, p=p)
            return x

        system.solve = keep
        return system

    monkeypatch.setattr(solvers.ConjugateGradientSolver, "system", spy)
    call = {"scale": 0.3, "causal": False, "solver": "cg", "budget": Budget(3, 1e-9)}
    with pytest.warns(ResidualWarning):
        attend(q, k, v, ridge, monitor=monitor, **call)
    p, x, right = solved["p"][0][0], solved["x"][0], solved["right"][0]
    spread = k[0] - (p @ k[0])[:, None]
    cx = torch.einsum("ij,ijd,ije,ie->id", p, spread, spread, x) + ridge[0] * x
    true = ((right - cx).norm(dim=1) / right.norm(dim=1)).max()
    assert monitor.last == pytest.approx(true.item(), rel=1e-6)


def test_a_row_stops_by_itself():
    q, k, v, ridge = problem(20, 40, 16, 4, n=1, seed=11)
    easy = k.mean(1, keepdim=True).expand(-1, 20, -1) + 1e-3 * q
    mixed = torch.cat([easy[:, :10], 5 * q[:, :10]], dim=1)
    call = {"scale": 0.2, "causal": False, "solver": "cg", "budget": Budget(64, 1e-2)}
    alone, company = attend(easy, k, v, ridge, **call), attend(mixed, k, v, ridge, **call)
    assert torch.allclose(alone[:, :10], company[:, :10], atol=1e-14)


def test_what_auto_chooses():
    def choice(dim, ridge, dtype=torch.float32, device="cpu"):
        q = torch.empty(1, dim, dtype=dtype, device=device)
        return choose_solver(q, q, ridge)

    assert choice(16, 1.0) == "cholesky"
    assert choice(solvers.CHOLESKY_DIM, 1.0) == "cholesky"
    assert choice(2 * solvers.CHOLESKY_DIM, 1.0) == "cg"
    assert choice(2 * solvers.CHOLESKY_DIM, 1e-3) == "cholesky"


def test_kernels_where_they_cannot_run_say_what_to_do(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    solvers.kernels_run_on.cache_clear()
    lla = module("lla", "CS", solver="triton").float()
    with pytest.raises(NotImplementedError, match="solver=auto"):
        lla(*(x.float() for x in qkv()))
    solvers.kernels_run_on.cache_clear()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [None, 40])
def test_decoding_is_the_last_row(monkeypatch, masked, chunk):
    if chunk:
        monkeypatch.setattr(decoding, "_CHUNK", chunk)
    q, k, v, ridge = problem(1, 50, 6, 4, seed=12, ridge=1e-2)
    mask = padding(3, 50) if masked else None
    leaves = [x.requires_grad_() for x in (q, k, v, ridge)]
    (g,) = draw((3, 1, 4), seed=13)
    out, grads = gradients(lambda *x: decode_local_linear(*x, mask, scale=0.4), leaves, g)
    want, want_grads = gradients(lambda *x: definition(*x, mask, scale=0.4, causal=True), leaves, g)
    assert error(out, want) <= 1e-12
    for got, expected in zip(grads, want_grads, strict=True):
        assert error(got, expected) <= 1e-9


def test_decoding_in_low_precision():
    q, k, v, ridge = problem(1, 300, 16, 16, seed=14)
    for dtype, offset, bar in ((torch.float32, 30.0, 1e-4), (torch.bfloat16, 0.0, 2e-2)):
        low = [(x + offset).to(dtype) for x in (q, k)] + [v.to(dtype)]
        out = decode_local_linear(*low, ridge.float(), scale=0.25)
        want = definition(*(x.double() for x in low), ridge, scale=0.25, causal=True)
        assert out.dtype == dtype
        assert error(out, want) <= bar


def test_a_module_can_be_copied_and_pickled():
    import copy
    import pickle

    lla = module("lla", "CS", solver="cg")
    q, k, v = qkv()
    lla(q, k, v)
    for twin in (copy.deepcopy(lla), pickle.loads(pickle.dumps(lla))):
        assert torch.equal(twin(q, k, v), lla(q, k, v))


def test_autocast_leaves_the_solve_alone():
    q, k, v = (x.float().requires_grad_() for x in qkv(40, 40))
    for name in ("lla", "local-polynomial"):
        attention = module(name, "CS", ridge=0.01).float()
        want = attention(q, k, v)
        want_grads = torch.autograd.grad(want.square().sum(), (q, k, v))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = attention(q, k, v)
            grads = torch.autograd.grad(out.square().sum(), (q, k, v))
        assert torch.equal(out, want)
        assert all(torch.equal(a, b) for a, b in zip(grads, want_grads, strict=True))
