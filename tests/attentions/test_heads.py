"""Products of heads that lie token by token."""

import pytest
import torch

from attentions.shared.heads import empty_heads, multiply_heads
from tests.attentions.cases import draw, error


@pytest.mark.parametrize("batch", [1, 2, 5])  # fewer and more than heads
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("by_token", [False, True])
def test_a_product_in_any_order_of_memory(batch, add, by_token):
    a, b, start = draw((batch, 7, 3, 4), (batch, 3, 4, 6), (batch, 3, 7, 6))
    a = a.transpose(1, 2)
    out = empty_heads(a, 6) if by_token else torch.empty_like(start)
    # What is not added to must not be read: memory that nobody has written may hold anything.
    out.copy_(start if add else torch.full_like(start, float("nan")))
    got = multiply_heads(a, b, out, 0.5, add=add)
    assert got is out
    assert error(got, 0.5 * (a @ b) + (start if add else 0.0)) <= 1e-14


def test_a_factor_may_be_one_for_all_sequences():
    a, b = draw((2, 3, 7, 4), (3, 4, 6))
    got = multiply_heads(a, b.expand(2, -1, -1, -1), empty_heads(a, 6))
    assert error(got, a @ b) <= 1e-14


def test_outputs_lie_as_a_projection_takes_them():
    (like,) = draw((2, 3, 7, 4))
    out = empty_heads(like, 6)
    assert out.shape == (2, 3, 7, 6)
    assert out.transpose(1, 2).is_contiguous()
