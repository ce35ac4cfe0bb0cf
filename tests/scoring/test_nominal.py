"""Nominal operations and bytes, against a counter of torch's and against tensors."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cab.scoring.nominal import Geometry, compulsory_bytes, nominal_flops

GEOMETRY = Geometry(2, 3, 8, "float32")


def tensors(length_q, length_k, grad=False):
    shapes = ((2, 3, n, 8) for n in (length_q, length_k, length_k))
    return [torch.randn(shape, requires_grad=grad) for shape in shapes]


@pytest.mark.parametrize("backward", [False, True])
def test_operations_are_the_matrix_products(backward):
    q, k, v = tensors(11, 17, backward)
    with FlopCounterMode(display=False) as counter:
        out = (q @ k.mT).softmax(-1) @ v
        if backward:
            out.sum().backward()
    found = counter.get_total_flops()
    if backward:
        # A kernel that keeps no scores computes them once more: the fifth product.
        found += 2 * 2 * 3 * 11 * 17 * 8
    phase = "forward_backward" if backward else "forward"
    assert nominal_flops(GEOMETRY, "noncausal-cross", phase, 11, 17) == found


def test_a_causal_mask_halves_them_in_self_attention_alone():
    whole = nominal_flops(GEOMETRY, "noncausal-self", "forward", 16, 16)
    assert nominal_flops(GEOMETRY, "causal-self", "forward", 16, 16) == whole / 2
    assert nominal_flops(GEOMETRY, "causal-cross", "forward", 16, 16) == whole
    # A token that is decoded sees every key.
    assert nominal_flops(GEOMETRY, "causal-self", "decode", 16, 16) == whole / 16


def test_bytes_are_those_of_the_tensors():
    q, k, v = tensors(11, 17, grad=True)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    gradient = torch.ones_like(out)
    forward = [q, k, v, out]
    assert compulsory_bytes(GEOMETRY, "forward", 11, 17) == sum(x.nbytes for x in forward)
    out.backward(gradient)
    both = [*forward, *forward, gradient, q.grad, k.grad, v.grad]
    assert compulsory_bytes(GEOMETRY, "forward_backward", 11, 17) == sum(x.nbytes for x in both)
