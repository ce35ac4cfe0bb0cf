"""Based: the published form, its special cases, and what it costs."""

import pytest
import torch

from cab.patterns import Pattern
from tests.attentions.cases import error, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention

PATTERNS = ["NS", "CS", "NC", "CC"]


@pytest.mark.parametrize("length", [9, 60, 200])
def test_is_the_published_plain_form(length):
    """Of flash-linear-attention, on queries and keys that are narrow already."""
    upstream = flash_linear_attention("ops/based/naive.py")
    q, k, v = qkv(length, length, 8)
    attention = module("based", "CS", dim=8, features=6)
    narrow = (q @ attention.query_map, k @ attention.key_map)
    want = upstream.naive_parallel_based(*narrow, v)
    assert error(attention(q, k, v), want) <= NEAR


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [9, 60])
def test_with_maps_of_one_it_is_the_taylor_polynomial_of_softmax(pattern, length):
    q, k, v = qkv(length if pattern.endswith("S") else 13, length, 8)
    attention = module("based", pattern, dim=8, features=8)
    with torch.no_grad():
        for weight in (attention.query_map, attention.key_map):
            weight.copy_(torch.eye(8).expand_as(weight))
    want = module("softmax-taylor", pattern, dim=8)(q, k, v)
    assert error(attention(q, k, v), want) <= 1e-12


def test_the_state_follows_the_features_and_not_the_width():
    narrow, wide = (module("based", "CS", dim=8, features=f) for f in (4, 16))
    assert narrow.state_size(100) == narrow.state_size(10**6)
    heads, values = narrow.spec.heads, narrow.spec.value_dim
    assert narrow.state_size(1) == heads * (1 + 4 + 10) * (values + 1)
    assert wide.state_size(1) == heads * (1 + 16 + 136) * (values + 1)
    state = narrow.prefill(*qkv(7, 7, 8)[1:])
    assert state.tensors["sums"].numel() == 2 * narrow.state_size(7)  # two sequences


def test_the_narrow_width_is_an_option_of_every_pattern():
    for pattern in Pattern:
        attention = module("based", pattern.abbreviation, dim=8, features=3)
        q, k, v = qkv(5, 5, 8)
        assert attention(q, k, v).shape == v.shape
