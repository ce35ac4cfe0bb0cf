"""How Local Linear Attention is solved: tiles, iterations, choice of a solver, decoding."""

import math
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attentions.lla import cholesky, decoding, solvers, tiles
from attentions.lla.decoding import decode_local_linear
from attentions.lla.residual import ResidualMonitor, ResidualWarning
from attentions.lla.solvers import Budget, choose_solver
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.lla_cases import SOLVERS, attend, definition, padding, problem


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


@pytest.mark.parametrize(
    "options",
    [{"ridge": -1.0}, {"ridge": 0.0}, {"ridge": math.inf}, {"iterations": 0}, {"solver": "lu"}],
)
def test_options_that_make_no_sense_are_refused(options):
    (name,) = options
    with pytest.raises(OptionError, match=name):
        module("lla", "CS", **options)


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
