"""Float32 keeps its digits where inputs are larger than usual; the reference is in float64."""

import pytest
import torch

from cab import Attention
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.registered import build, call, claims


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize(
    ("cls", "pattern"), claims(lambda cls, _: cls.reference is not Attention.reference)
)
def test_single_precision_at_any_scale(cls, pattern, scale):
    inputs = call(pattern, scale=scale).to(torch.float32)
    want = inputs.to(torch.float64).run(build(cls, pattern).reference)
    got = inputs.run(build(cls, pattern, torch.float32))
    assert got.dtype == torch.float32
    # Rounding a score of 500 alone changes a weight by 3e-5.
    assert error(got, want) <= (2e-6 if scale == 1 else 2e-4)


@pytest.mark.parametrize("offset", [0.0, 16.0])
@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_local_polynomials_of_large_keys(pattern, offset):
    q, k, v = ((8 * x + offset).float() for x in qkv(65, 65, 16))
    (grad,) = draw(q.shape, seed=3)
    attention = module("local-polynomial", pattern, 16)
    out, found = gradients(attention, (q, k, v), grad.float())
    wide = [x.double() for x in (q, k, v)]
    want_out, want = gradients(attention.reference, wide, grad.float().double())
    assert out.dtype == torch.float32
    assert error(out, want_out) <= 1e-6
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-5
    half = attention(*(x.bfloat16() for x in (q, k, v)))
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("pattern", ["NC", "CS"])
def test_local_linear_attention_is_exact_in_double_precision_at_any_width(pattern):
    q, k, v = qkv(23, 40, 96) if pattern == "NC" else qkv(40, 40, 96)
    attention = module("lla", pattern, 96)
    assert error(attention(q, k, v), attention.reference(q, k, v)) <= 1e-9
