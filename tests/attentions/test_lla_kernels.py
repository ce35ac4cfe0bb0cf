"""The Triton kernels of Local Linear Attention against its definition in float64."""

import pytest
import torch
from torch.nn import functional as F

import cab
import tests.attentions.kernel_cases as cases
from attentions.lla import solvers
from attentions.lla.kernels.decode import local_linear_decode
from attentions.lla.kernels.forward import local_linear_forward
from attentions.lla.kernels.function import local_linear_triton
from attentions.lla.reference import local_linear_regression
from attentions.lla.residual import ResidualMonitor
from attentions.lla.solvers import Budget, local_linear_attention
from cab.patterns import Pattern
from tests.attentions.cases import error, gradients, visible_keys
from tests.attentions.kernel_cases import draw, padding

pytestmark = cases.MARKS
_one_configuration = cases.one_configuration


@pytest.mark.skipif(cases.RUNNABLE, reason="the other tests run in this process")
def test_in_a_fresh_process():
    cases.run_in_a_fresh_process(__file__)


def ridges(value, n=2):
    return torch.linspace(value, 1.5 * value, n, device=cases.DEVICE)


def definition(q, k, v, ridge, key_mask, scale, causal):
    """Float64, one regression per query; differentiable."""
    double = (t.double()[None] for t in (q, k, v))
    visible = visible_keys(q, k, key_mask, causal)[None]
    return local_linear_regression(*double, visible, ridge.double(), scale)[0]


def compare(q, k, v, ridge, key_mask, causal, iterations=60, tolerance=1e-6):
    """Relative errors of the output and of the gradients of q, k, v and ridge."""
    scale = q.shape[-1] ** -0.5
    grad = draw(1, q.shape[1], v.shape[2], n=q.shape[0], seed=9, dtype=q.dtype)[1]

    def kernels(*tensors):
        options = {"iterations": iterations, "tolerance": tolerance}
        out, residual = local_linear_triton(
            *tensors, key_mask, scale=scale, causal=causal, **options
        )
        assert residual.max() <= 1e-3
        assert not residual.requires_grad
        return out

    got, got_grads = gradients(kernels, (q, k, v, ridge), grad)
    doubles = [t.double() for t in (q, k, v, ridge)]
    want, want_grads = gradients(
        lambda *t: definition(*t, key_mask, scale, causal), doubles, grad.double()
    )
    assert [t.dtype for t in (got, *got_grads)] == [t.dtype for t in (v, q, k, v, ridge)]
    return [error(g, w) for g, w in zip((got, *got_grads), (want, *want_grads), strict=True)]


@pytest.mark.parametrize(
    ("dim", "dim_v", "length_q", "length_k", "causal", "masked", "ridge"),
    [
        (16, 16, 45, 45, True, False, 0.1),
        (24, 24, 33, 50, True, True, 0.1),
        (64, 64, 40, 36, True, False, 1.0),
        (24, 16, 20, 70, False, True, 0.01),
        (16, 40, 64, 32, False, False, 1.0),
        (20, 20, 1, 67, True, False, 0.1),
        (16, 16, 37, 37, True, True, 0.01),
    ],
)
def test_float32(dim, dim_v, length_q, length_k, causal, masked, ridge):
    q, k, v = draw(length_q, length_k, dim, dim_v)
    mask = padding(2, length_k) if masked else None
    out, *grads = compare(q, k, v, ridges(ridge), mask, causal)
    print("float32", dim, length_q, length_k, f"{out:.1e}", *[f"{g:.1e}" for g in grads])
    assert out <= 1e-4
    assert max(grads) <= 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [True, False])
def test_half_precision(dtype, causal):
    q, k, v = draw(40, 40, 24, dtype=dtype)
    out, *grads = compare(q, k, v, ridges(1.0), padding(2, 40), causal, tolerance=1e-4)
    print(dtype, causal, f"{out:.1e}", *[f"{g:.1e}" for g in grads])
    assert out <= 2e-2
    assert max(grads) <= 2e-2


def test_rows_without_a_key_are_zero_and_have_no_gradient():
    q, k, v = draw(40, 20, 16)
    inputs = [t.requires_grad_() for t in (q, k, v)]
    mask = padding(2, 20)
    out, residual = local_linear_triton(
        *inputs, ridges(0.1), mask, scale=0.25, causal=True, iterations=30, tolerance=1e-6
    )
    out.sum().backward()
    assert (out[0, :20] == 0).all()
    assert (out[1] == 0).all()
    assert (residual[1] == 0).all()
    assert (out[0, 20:] != 0).any()
    for t in inputs:
        assert (t.grad[1] == 0).all()
        assert torch.isfinite(t.grad).all()
    assert (q.grad[0, :20] == 0).all()
    assert (k.grad[0][~mask[0]] == 0).all()


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_a_row_with_one_key_gives_its_value(ridge):
    q, k, v = [t.requires_grad_() for t in draw(5, 1, 16)]
    out, _ = local_linear_triton(
        q, k, v, ridges(ridge), scale=0.25, causal=False, iterations=30, tolerance=1e-6
    )
    out.sum().backward()
    assert torch.allclose(out, v.expand_as(out), rtol=1e-6)
    assert torch.allclose(v.grad, torch.full_like(v, 5.0))
    assert q.grad.abs().max() <= 1e-5
    assert k.grad.abs().max() <= 1e-5


def test_a_small_ridge_costs_no_more_than_with_cholesky_in_float32():
    q, k, v = draw(37, 37, 16)
    ridge, mask = ridges(1e-3), padding(2, 37)
    want = definition(q, k, v, ridge, mask, 0.25, True)
    budget = Budget(iterations=100, tolerance=1e-6)
    cholesky = local_linear_attention(
        q, k, v, ridge, mask, scale=0.25, causal=True,
        solver="cholesky", budget=budget, monitor=ResidualMonitor(""),
    )  # fmt: skip
    options = {"iterations": budget.iterations, "tolerance": budget.tolerance}
    out = local_linear_forward(q, k, v, ridge, mask, scale=0.25, causal=True, **options).out
    print("ridge 1e-3", f"{error(out, want):.1e}", f"cholesky {error(cholesky, want):.1e}")
    assert error(out, want) <= 2 * error(cholesky, want) <= 1e-3


ADVERSARIAL = {
    "collinear keys": (lambda q, k, v: (q, k[..., :1] * k[:, :1], v), 0.1),
    "equal keys": (lambda q, k, v: (q, k[:, :1].expand_as(k), v), 0.1),
    "far from zero": (lambda q, k, v: (q + 10, k + 10, v + 10), 0.1),
    "huge queries": (lambda q, k, v: (q * 1e3, k * 1e-2, v), 0.1),
    "huge keys": (lambda q, k, v: (q * 1e-2, k * 1e3, v), 1e5),
    "huge norms": (lambda q, k, v: (q * 10, k * 10, v * 1e4), 1.0),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_inputs(name):
    change, ridge = ADVERSARIAL[name]
    q, k, v = change(*draw(37, 37, 16))
    out, *grads = compare(q, k, v, ridges(ridge), None, True)
    print(name, f"{out:.1e}", *[f"{g:.1e}" for g in grads])
    assert out <= 1e-4
    assert max(grads) <= 1e-3


def test_a_large_ridge_gives_softmax_attention():
    q, k, v = draw(33, 40, 16)
    out, _ = local_linear_triton(
        q, k, v, ridges(1e6), scale=0.25, causal=False, iterations=5, tolerance=1e-6
    )
    assert torch.allclose(out, F.scaled_dot_product_attention(q, k, v, scale=0.25), atol=1e-5)


def test_too_few_iterations_show_in_the_residual():
    q, k, v = draw(33, 40, 24)
    ridge, mask, scale = ridges(0.01), padding(2, 40), 24**-0.5

    def run(iterations):
        options = {"iterations": iterations, "tolerance": 1e-6}
        return local_linear_forward(q, k, v, ridge, mask, scale=scale, causal=True, **options)

    want = definition(q, k, v, ridge, mask, scale, True)
    short, long = run(3), run(60)
    assert error(short.out, want) > 1e-2
    assert short.residual.max() > 1e-2
    assert error(long.out, want) <= 1e-4
    assert long.residual.max() <= 1e-4

    # What it reports is the residual of the x that it returns.
    visible = visible_keys(q, k, mask, True)
    scores = (q.double() @ k.double().mT * scale).masked_fill(~visible, float("-inf"))
    p = torch.softmax(scores[0], -1)
    kbar, x = p @ k[0].double(), short.x[0].double()
    spread = k[0].double() - kbar[:, None]
    cx = torch.einsum("ij,ijd,ije,ie->id", p, spread, spread, x) + ridge[0].double() * x
    b = torch.where((visible[0].sum(-1) > 1)[:, None], q[0].double() - kbar, 0.0)
    residual = (b - torch.where(b != 0, cx, 0.0)).norm(dim=-1) / b.norm(dim=-1).clamp(min=1e-9)
    assert torch.allclose(short.residual[0].double(), residual, rtol=1e-3, atol=1e-5)


def test_a_row_stops_by_itself():
    # A converged row must not change with the company that it has in its tile.
    q, k, v = draw(20, 40, 24)
    options = {"scale": 0.2, "causal": False, "iterations": 60, "tolerance": 1e-2}
    easy = k.mean(1, keepdim=True).expand(-1, 20, -1).contiguous()
    mixed = torch.cat([easy[:, :10], q[:, :10] * 5], dim=1)
    alone = local_linear_forward(easy, k, v, ridges(0.01), **options)
    company = local_linear_forward(mixed, k, v, ridges(0.01), **options)
    assert torch.allclose(alone.x[:, :10], company.x[:, :10], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dim", "dim_v", "length_k", "share", "offset", "dtype", "bar"),
    [
        (16, 16, 1, None, 0.0, torch.float32, 1e-4),
        (24, 40, 150, 40, 0.0, torch.float32, 1e-4),
        (64, 64, 200, 64, 0.0, torch.float32, 1e-4),
        (24, 24, 100, 30, 30.0, torch.float32, 1e-4),
        (128, 16, 70, None, 0.0, torch.float32, 1e-4),
        (24, 24, 90, 32, 0.0, torch.bfloat16, 2e-2),
    ],
)
def test_decoding(dim, dim_v, length_k, share, offset, dtype, bar):
    q, k, v = draw(1, length_k, dim, dim_v, n=3, dtype=dtype)
    q, k, scale, ridge = q + offset, k + offset, dim**-0.5, ridges(0.1, 3)
    mask = padding(3, length_k)
    mask[0, : length_k // 2] = False  # whole shares without a key
    out = local_linear_decode(q, k, v, ridge, mask, scale=scale, share=share)
    assert out.dtype == dtype
    assert (out[2] == 0).all()
    measured = error(out, definition(q, k, v, ridge, mask, scale, True))
    print("decode", dim, length_k, share, dtype, f"{measured:.1e}")
    assert measured <= bar


def test_decoding_equals_the_last_row():
    q, k, v = draw(37, 37, 24)
    ridge = ridges(0.1)
    options = {"scale": 0.2, "causal": True, "iterations": 60, "tolerance": 1e-6}
    rows = local_linear_forward(q, k, v, ridge, **options).out
    last = local_linear_decode(q[:, -1:], k, v, ridge, scale=0.2, share=16)
    assert torch.allclose(last, rows[:, -1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length_q", [0, 3])
def test_empty_inputs(length_q):
    q, k, v = [t.requires_grad_() for t in draw(length_q, 3 - length_q, 16)]
    out, _ = local_linear_triton(
        q, k, v, ridges(0.1), scale=0.25, causal=False, iterations=5, tolerance=1e-6
    )
    out.sum().backward()
    assert (out == 0).all()
    assert all((t.grad == 0).all() for t in (q, k, v))


def test_what_the_kernels_do_not_serve_is_an_error():
    q, k, v = draw(3, 3, 16)
    options = {"scale": 0.25, "causal": True, "iterations": 5, "tolerance": 1e-6}
    with pytest.raises(ValueError, match="float64"):
        local_linear_forward(q.double(), k.double(), v.double(), ridges(0.1), **options)
    with pytest.raises(ValueError, match="head dims"):
        local_linear_forward(*draw(3, 3, 130), ridges(0.1), **options)
    with pytest.raises(ValueError, match="do not fit"):
        local_linear_forward(q, k[:, :, :8], v, ridges(0.1), **options)
    with pytest.raises(ValueError, match="ridge"):
        local_linear_forward(q, k, v, ridges(0.1).double(), **options)
    with pytest.raises(ValueError, match="one query"):
        local_linear_decode(q, k, v, ridges(0.1), scale=0.25)


@pytest.mark.parametrize("pattern", list(Pattern))
def test_the_entry_runs_on_the_kernels(pattern):
    # As on a GPU, but chosen by name: auto never chooses the interpreter.
    solvers.kernels_run_on.cache_clear()
    lla = cab.attention(
        "lla", pattern=pattern, heads=2, head_dim=16, ridge=0.1, solver="triton"
    ).to(cases.DEVICE)
    length_q = 20 if pattern.cross else 33
    q, k, v = (x[None].requires_grad_() for x in draw(length_q, 33, 16))
    mask = torch.ones(1, 33, dtype=torch.bool, device=cases.DEVICE)
    mask[:, 5:9] = False
    context = cab.AttentionContext(key_mask=mask)
    out = lla(q, k, v, context)
    out.square().sum().backward()
    assert lla.monitor.last <= 1e-4
    doubles = [x.detach().double().requires_grad_() for x in (q, k, v)]
    want = lla.double().reference(*doubles, context)
    want.square().sum().backward()
    assert error(out, want) <= 1e-4
    for got, expected in zip((q, k, v), doubles, strict=True):
        assert error(got.grad, expected.grad) <= 1e-3


def test_rows_that_one_key_dominates_raise_no_false_alarm():
    # Their right-hand sides in the backward pass are so small that squares underflow.
    q, k, v = (x.requires_grad_() for x in draw(33, 33, 16))
    residuals = {}
    out, _ = local_linear_triton(
        q * 40, k, v, ridges(0.1), scale=0.25, causal=True, iterations=60, tolerance=1e-6,
        watch=lambda residual, what: residuals.update({what: residual.max().item()}),
    )  # fmt: skip
    out.sum().backward()
    assert set(residuals) == {"output", "gradients"}
    assert max(residuals.values()) <= 1e-3
