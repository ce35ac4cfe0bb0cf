"""What each mechanism must equal in a case where the answer is known otherwise."""

import pytest
import torch

from attentions.shared.masks import causal_mask
from attentions.shared.spd import SpdSystems
from cab.patterns import Pattern
from tests.attentions.cases import draw, module, qkv


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_local_with_a_window_over_everything_is_softmax(pattern):
    q, k, v = qkv()
    want = module("softmax", pattern)(q, k, v)
    assert torch.allclose(module("local", pattern, window=19)(q, k, v), want, atol=1e-12)
    assert not torch.allclose(module("local", pattern, window=3)(q, k, v), want, atol=1e-3)


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
    a, b = draw((7, dim, dim), (7, dim))
    spd = a @ a.mT + 0.1 * torch.eye(dim).double()
    systems = SpdSystems(dim, 7, a)
    for scale in (1.0, 2.0):  # the memory serves again
        # The upper triangle is not read.
        systems.matrix.copy_((scale * spd).tril().permute(1, 2, 0))
        systems.right.copy_(b.T)
        want = torch.linalg.solve(scale * spd, b[..., None])[..., 0]
        assert torch.allclose(systems.solve_().T, want, rtol=1e-8, atol=1e-8)


def test_a_matrix_that_is_not_positive_definite_gives_nan():
    for dim in (4, 40):
        systems = SpdSystems(dim, 1, torch.ones(1).double())
        systems.matrix.copy_(-torch.eye(dim)[..., None])
        systems.right.fill_(1.0)
        assert systems.solve_().isnan().any()


def test_softmax_and_exact_softmax_agree_in_low_precision():
    q, k, v = (x.bfloat16() for x in qkv())
    for pattern in Pattern:
        fused = module("softmax", pattern)(q, k, v).float()
        plain = module("softmax-exact", pattern)(q, k, v).float()
        assert (fused - plain).abs().max() < 3e-2
