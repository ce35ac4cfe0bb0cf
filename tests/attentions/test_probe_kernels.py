"""The Triton kernels with a given probe (Parallax) against their definition in float64."""

import pytest
import torch
from torch.nn import functional as F

import tests.attentions.kernel_cases as cases
from attentions.lla.kernels.forward import local_linear_forward
from attentions.lla.kernels.probe import local_probe_triton
from tests.attentions.cases import error, gradients, visible_keys
from tests.attentions.kernel_cases import draw, padding

pytestmark = cases.MARKS
_one_configuration = cases.one_configuration


@pytest.mark.skipif(cases.RUNNABLE, reason="the other tests run in this process")
def test_in_a_fresh_process():
    cases.run_in_a_fresh_process(__file__)


def draw_with_probe(length_q, length_k, dim, dim_v=None, dtype=torch.float32):
    q, k, v = draw(length_q, length_k, dim, dim_v, dtype=dtype)
    return q, k, v, draw(length_q, 1, dim, seed=5, dtype=dtype)[0]


def definition(q, k, v, x, key_mask, scale, causal):
    """Every a_ij written out; differentiable."""
    visible = visible_keys(q, k, key_mask, causal)
    # Finite, as a row without a key would otherwise have NaN, in its gradient too.
    p = (q @ k.mT * scale).masked_fill(~visible, -1e300).softmax(-1) * visible
    a = ((k[:, None] - (p @ k)[:, :, None]) * x[:, :, None]).sum(-1)
    return (p * (1.0 + a)) @ v


def compare(q, k, v, x, key_mask, causal):
    """Relative errors of the output and of the gradients of q, k, v and x."""
    scale = q.shape[-1] ** -0.5
    grad = draw(1, q.shape[1], v.shape[2], n=q.shape[0], seed=9, dtype=q.dtype)[2]
    got, got_grads = gradients(
        lambda *t: local_probe_triton(*t, key_mask, scale=scale, causal=causal), (q, k, v, x), grad
    )
    doubles = [t.double() for t in (q, k, v, x)]
    want, want_grads = gradients(
        lambda *t: definition(*t, key_mask, scale, causal), doubles, grad.double()
    )
    assert [t.dtype for t in (got, *got_grads)] == [t.dtype for t in (v, q, k, v, x)]
    return [error(g, w) for g, w in zip((got, *got_grads), (want, *want_grads), strict=True)]


@pytest.mark.parametrize(
    ("dim", "dim_v", "length_q", "length_k", "causal", "masked"),
    [
        (16, 16, 45, 45, True, False),
        (24, 24, 33, 50, True, True),
        (64, 64, 40, 36, True, False),
        (64, 24, 20, 70, False, True),
        (16, 40, 64, 32, False, False),
        (24, 16, 1, 67, True, False),
        (16, 24, 37, 37, True, True),
        (24, 40, 5, 1, False, False),
    ],
)
def test_float32(dim, dim_v, length_q, length_k, causal, masked):
    inputs = draw_with_probe(length_q, length_k, dim, dim_v)
    mask = padding(2, length_k) if masked else None
    out, *grads = compare(*inputs, mask, causal)
    print("float32", dim, length_q, length_k, f"{out:.1e}", *[f"{g:.1e}" for g in grads])
    assert out <= 1e-4
    assert max(grads) <= 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [True, False])
def test_half_precision(dtype, causal):
    inputs = draw_with_probe(40, 45, 24, 16, dtype=dtype)
    out, *grads = compare(*inputs, padding(2, 45), causal)
    print(dtype, causal, f"{out:.1e}", *[f"{g:.1e}" for g in grads])
    assert out <= 2e-2
    assert max(grads) <= 2e-2


@pytest.mark.parametrize(
    ("dtype", "probe_dtype"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float16)],
)
def test_a_probe_may_have_a_dtype_of_its_own(dtype, probe_dtype):
    q, k, v, x = draw_with_probe(20, 20, 16, dtype=dtype)
    out, *grads = compare(q, k, v, x.to(probe_dtype), None, True)
    assert out <= 2e-2
    assert max(grads) <= 2e-2


ADVERSARIAL = {
    "collinear keys": lambda q, k, v, x: (q, k[..., :1] * k[:, :1], v, x),
    "equal keys": lambda q, k, v, x: (q, k[:, :1].expand_as(k), v, x),
    "far from zero": lambda q, k, v, x: (q + 10, k + 10, v + 10, x),
    "huge queries": lambda q, k, v, x: (q * 1e3, k, v, x),
    "huge keys": lambda q, k, v, x: (q * 1e-3, k * 1e3, v, x),
    "huge probes": lambda q, k, v, x: (q, k, v, x * 1e3),
    "huge values": lambda q, k, v, x: (q, k, v * 1e4, x),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_inputs(name):
    out, *grads = compare(*ADVERSARIAL[name](*draw_with_probe(37, 37, 16)), None, True)
    print(name, f"{out:.1e}", *[f"{g:.1e}" for g in grads])
    assert out <= 1e-4
    assert max(grads) <= 1e-3


def test_strided_inputs():
    inputs = [t.mT.contiguous().mT for t in draw_with_probe(20, 20, 16)]
    assert not any(t.is_contiguous() for t in inputs)
    assert max(compare(*inputs, None, True)) <= 1e-4


def test_a_probe_of_zero_is_softmax_attention():
    q, k, v, _ = draw_with_probe(33, 40, 16)
    out = local_probe_triton(q, k, v, torch.zeros_like(q), scale=0.25, causal=False)
    assert torch.allclose(out, F.scaled_dot_product_attention(q, k, v, scale=0.25), atol=1e-5)


def test_the_solution_as_the_probe_is_local_linear_attention():
    q, k, v = draw(33, 40, 16)
    ridge, mask = torch.full((2,), 0.1, device=cases.DEVICE), padding(2, 40)
    options = {"scale": 0.25, "causal": True}
    solved = local_linear_forward(q, k, v, ridge, mask, iterations=60, tolerance=1e-6, **options)
    probed = local_probe_triton(q, k, v, solved.x, mask, **options)
    assert torch.allclose(probed, solved.out, rtol=1e-5, atol=1e-5)


def test_rows_without_a_key_are_zero_and_have_no_gradient():
    inputs = [t.requires_grad_() for t in draw_with_probe(40, 20, 16)]
    q, k, _, x = inputs
    mask = padding(2, 20)
    out = local_probe_triton(*inputs, mask, scale=0.25, causal=True)
    out.sum().backward()
    assert (out[0, :20] == 0).all()
    assert (out[1] == 0).all()
    assert (out[0, 20:] != 0).any()
    for t in inputs:
        assert (t.grad[1] == 0).all()
        assert torch.isfinite(t.grad).all()
    assert (q.grad[0, :20] == 0).all()
    assert (x.grad[0, :20] == 0).all()
    assert (x.grad[0, 22:] != 0).any()
    assert (k.grad[0][~mask[0]] == 0).all()


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_row_with_one_key_gives_its_value(size):
    q, k, v, x = draw_with_probe(5, 1, 16)
    inputs = [t.requires_grad_() for t in (q, k, v, x * size)]
    out = local_probe_triton(*inputs, scale=0.25, causal=False)
    dq, dk, dv, dx = torch.autograd.grad(out.sum(), inputs)
    assert torch.allclose(out, v.expand_as(out), rtol=1e-6)
    # What rounding leaves of a = 0 and T = 0 grows with the probe; the gradient of it does not.
    assert torch.allclose(dv, torch.full_like(v, 5.0), rtol=1e-6 * size)
    assert dq.abs().max() <= 1e-5
    assert dk.abs().max() <= 1e-5 * size
    assert (dx == 0).all()


@pytest.mark.parametrize("length_q", [0, 3])
def test_empty_inputs(length_q):
    inputs = [t.requires_grad_() for t in draw_with_probe(length_q, 3 - length_q, 16)]
    out = local_probe_triton(*inputs, scale=0.25, causal=False)
    out.sum().backward()
    assert (out == 0).all()
    assert all((t.grad == 0).all() for t in inputs)


def test_what_the_kernels_do_not_serve_is_an_error():
    q, k, v, x = draw_with_probe(3, 3, 16)
    options = {"scale": 0.25, "causal": True}
    with pytest.raises(ValueError, match="float64"):
        local_probe_triton(q.double(), k.double(), v.double(), x, **options)
    with pytest.raises(ValueError, match="probes in"):
        local_probe_triton(q, k, v, x.double(), **options)
    with pytest.raises(ValueError, match="one dtype"):
        local_probe_triton(q, k.half(), v, x, **options)
    with pytest.raises(ValueError, match="head dims"):
        local_probe_triton(*draw_with_probe(3, 3, 130), **options)
    with pytest.raises(ValueError, match="do not fit"):
        local_probe_triton(q, k[:, :, :8], v, x, **options)
    with pytest.raises(ValueError, match="one probe per query"):
        local_probe_triton(q, k, v, x[:, :2], **options)
    with pytest.raises(ValueError, match="key_mask"):
        local_probe_triton(q, k, v, x, padding(2, 4), **options)
    with pytest.raises(ValueError, match="must be bool"):
        local_probe_triton(q, k, v, x, padding(2, 3).long(), **options)
