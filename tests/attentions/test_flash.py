"""Fused kernels only: the same function as softmax, and a clear word where there is no kernel."""

import warnings

import pytest
import torch

import cab
from cab.patterns import Pattern
from tests.attentions.cases import error, module, qkv


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_the_plain_formula(pattern, dtype):
    q, k, v = qkv(19 if not pattern.cross else 11, 19)
    bar = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    want = module("softmax-exact", pattern)(q, k, v)
    got = module("flash", pattern)(*(x.to(dtype) for x in (q, k, v)))
    assert got.dtype == dtype
    assert error(got, want) <= bar


@pytest.mark.parametrize("length_q", [1, 4, 18])
def test_fewer_queries_than_keys_are_the_last_ones(length_q):
    q, k, v = qkv(length_q, 19)
    want = module("softmax-exact", "CS")(q, k, v)
    assert error(module("flash", "CS")(q, k, v), want) <= 1e-12


@pytest.mark.parametrize("value_dim", [3, 8])
def test_values_of_another_width(value_dim):
    q, k, _ = qkv()
    v = torch.randn(2, 3, 19, value_dim, generator=torch.Generator().manual_seed(1)).double()
    want = module("softmax-exact", "NS")(q, k, v)
    assert error(module("flash", "NS")(q, k, v), want) <= 1e-12


def test_keeps_no_score_matrix():
    q, k, v = (torch.randn(1, 2, 512, 16, requires_grad=True) for _ in range(3))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, id):
        module("flash", "NS", dim=16).float()(q, k, v)
    assert max(kept) < 512 * 512


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA has a memory-efficient kernel")
def test_a_kernel_that_does_not_exist_is_named():
    attention = cab.attention("flash", pattern="NS", heads=3, head_dim=5, backend="efficient")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells why, kernel by kernel
        with pytest.raises(NotImplementedError, match="no efficient attention kernel"):
            attention(*qkv())
