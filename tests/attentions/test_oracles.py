"""What each mechanism must equal in a case where the answer is known otherwise."""

import pytest
import torch
from torch.nn import functional as F

import cab
from attentions.exact import exact_softmax_attention
from attentions.masks import causal_mask
from attentions.spd import solve_spd_
from attentions.windows import banded_softmax_attention
from cab.patterns import Pattern


def draw(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]


def qkv(length_q=19, length_k=19, dim=5, seed=0):
    return draw((2, 3, length_q, dim), (2, 3, length_k, dim), (2, 3, length_k, dim), seed=seed)


def module(name, pattern, dim=5, **options):
    return cab.attention(name, pattern=pattern, heads=3, head_dim=dim, **options).double().eval()


@pytest.mark.parametrize("pattern", list(Pattern))
def test_lla_tends_to_softmax_as_the_ridge_grows(pattern):
    q, k, v = qkv()
    softmax = module("softmax", pattern)(q, k, v)
    errors = [
        (module("lla", pattern, ridge=ridge)(q, k, v) - softmax).abs().max().item()
        for ridge in (1e2, 1e4, 1e6)
    ]
    # The slope falls off as 1 / ridge.
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(100, rel=0.2)


def test_lla_reproduces_values_that_are_affine_in_the_keys():
    q, k, _ = qkv(length_k=40)
    slope, shift = draw((5, 4), (4,), seed=1)
    v = k @ slope + shift
    lla = module("lla", "NC", ridge=1e-10, learn_ridge=False)
    assert torch.allclose(lla(q, k, v), q @ slope + shift, atol=1e-6)
    softmax = module("softmax", "NC")(q, k, v)
    assert (softmax - (q @ slope + shift)).abs().max() > 0.5


def test_lla_without_a_kernel_is_affine_ridge_regression():
    q, k, v = qkv(length_k=40)
    ridge = 0.3
    lla = module("lla", "NC", scale=0.0, ridge=ridge, learn_ridge=False)
    mean_k, mean_v = k.mean(-2, keepdim=True), v.mean(-2, keepdim=True)
    gram = (k - mean_k).transpose(-1, -2) @ (k - mean_k) / 40 + ridge * torch.eye(5).double()
    cross = (k - mean_k).transpose(-1, -2) @ (v - mean_v) / 40
    want = mean_v + (q - mean_k) @ torch.linalg.solve(gram, cross)
    assert torch.allclose(lla(q, k, v), want, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_lla_gradients_against_finite_differences(causal, masked):
    from attentions.lla.cholesky import local_linear_cholesky

    q, k, v = (x[0, :2].contiguous().requires_grad_() for x in qkv(6, 6, 3))
    ridge = torch.tensor([0.1, 2.0], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2:4] = False
    mask[1] = False

    def call(*arguments):
        return local_linear_cholesky(*arguments, mask if masked else None, scale=0.7, causal=causal)

    assert torch.autograd.gradcheck(call, (q, k, v, ridge))


def test_lla_gradients_equal_autograd_through_the_definition_across_tiles(monkeypatch):
    from attentions.lla import cholesky

    monkeypatch.setattr(cholesky, "_TILE_ROWS", 4)
    monkeypatch.setattr(cholesky, "_TILE_WEIGHTS", 64)
    for pattern in ("CS", "NC"):
        lla = module("lla", pattern, ridge=0.05)
        leaves = [x.requires_grad_() for x in qkv(19, 19)]
        (gradient,) = draw((2, 3, 19, 5), seed=3)
        wrt = [*leaves, lla.raw_ridge]
        got = torch.autograd.grad(lla(*leaves), wrt, gradient)
        want = torch.autograd.grad(lla.reference(*leaves), wrt, gradient)
        for a, b in zip(got, want, strict=True):
            assert (a - b).abs().max() <= 1e-9 * b.abs().max()


def test_lla_learns_its_ridge_and_starts_where_asked():
    for ridge in (1e-3, 0.5, 30.0):
        lla = module("lla", "CS", ridge=ridge)
        assert torch.allclose(lla.ridge, torch.full((3,), ridge).double(), rtol=1e-5)
    with pytest.raises(ValueError, match="positive"):
        module("lla", "CS", ridge=-1.0)


def test_lla_with_qk_norm_ignores_the_length_of_queries_and_keys():
    q, k, v = qkv()
    lla = module("lla", "NS", qk_norm=True)
    assert torch.allclose(lla(q, k, v), lla(3 * q, 0.2 * k, v), atol=1e-5)


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_local_with_a_window_over_everything_is_softmax(pattern):
    q, k, v = qkv()
    want = module("softmax", pattern)(q, k, v)
    assert torch.allclose(module("local", pattern, window=19)(q, k, v), want, atol=1e-12)
    assert not torch.allclose(module("local", pattern, window=3)(q, k, v), want, atol=1e-3)


@pytest.mark.parametrize("length", [1, 7, 16, 17, 50])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (2, 5), (40, 40)])
def test_banded_attention_equals_the_band_mask(length, before, after):
    q, k, v = qkv(length, length)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    band = (j >= i - before) & (j <= i + after)
    want = exact_softmax_attention(q, k, v, band)
    got = banded_softmax_attention(q, k, v, None, before=before, after=after)
    assert torch.allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("length_k", [1, 63, 64, 65, 130])
def test_linear_attention_chunks_equal_the_recurrence(length_k):
    q, k, v = qkv(length_k, length_k)
    fq, fk = F.elu(q) + 1, F.elu(k) + 1
    state = torch.zeros(2, 3, 5, 5).double()
    total = torch.zeros(2, 3, 5).double()
    rows = []
    for t in range(length_k):
        state = state + fk[:, :, t, :, None] * v[:, :, t, None, :]
        total = total + fk[:, :, t]
        numerator = (fq[:, :, t, None, :] @ state)[:, :, 0]
        rows.append(numerator / (fq[:, :, t] * total).sum(-1, keepdim=True))
    want = torch.stack(rows, dim=2)
    assert torch.allclose(module("linear-elu", "CS")(q, k, v), want, atol=1e-10)


@pytest.mark.parametrize("name", ["softmax", "softmax-exact", "linear-elu", "local", "lla"])
def test_fewer_queries_than_keys_are_the_last_ones(name):
    q, k, v = qkv(70, 70)
    attention = module(name, "CS")
    whole = attention(q, k, v)
    for last in (1, 3, 69):
        assert torch.allclose(attention(q[:, :, -last:], k, v), whole[:, :, -last:], atol=1e-9)


def test_causal_mask_is_bottom_right_aligned():
    assert causal_mask(2, 3).tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("dim", [1, 2, 16, 33])
def test_many_small_solves(dim):
    a, b = draw((3, dim, dim, 7), (3, dim, 7))
    spd = torch.einsum("nijr,nkjr->nikr", a, a) + 0.1 * torch.eye(dim).double()[None, :, :, None]
    want = torch.linalg.solve(spd.permute(0, 3, 1, 2), b.permute(0, 2, 1)[..., None])[..., 0]
    got = solve_spd_(spd.clone(), b.clone())
    assert torch.allclose(got, want.transpose(1, 2), rtol=1e-8, atol=1e-8)


def test_a_matrix_that_is_not_positive_definite_gives_nan():
    for dim in (4, 40):
        bad = -torch.eye(dim)[None, :, :, None].double()
        assert solve_spd_(bad, torch.ones(1, dim, 1).double()).isnan().any()


def test_softmax_and_exact_softmax_agree_in_low_precision():
    q, k, v = (x.bfloat16() for x in qkv())
    for pattern in Pattern:
        fused = module("softmax", pattern)(q, k, v).float()
        plain = module("softmax-exact", pattern)(q, k, v).float()
        assert (fused - plain).abs().max() < 3e-2
