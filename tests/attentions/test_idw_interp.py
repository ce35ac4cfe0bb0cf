"""Inverse-distance interpolation: at the keys, between them, of all of them, step by step."""

import pytest
import torch

import cab
from cab import AttentionContext
from cab.errors import OptionError, UnsupportedPatternError
from tests.attentions.cases import error, module, qkv


def times(length, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(2, length, generator=generator, dtype=torch.float64)).cumsum(-1)


@pytest.mark.parametrize("pattern", ["NC", "CC"])
def test_at_a_key_is_its_value(pattern):
    q, k, v = qkv()
    attention = module("idw-interp", pattern)
    assert error(attention(q, k, v), v) <= 1e-7
    place = torch.tensor([3, 0, 18])
    context = AttentionContext(query_positions=place)
    assert error(attention(q[:, :, :3], k, v, context), v[:, :, place]) <= 1e-7


def test_between_two_values_is_their_weighted_mean():
    q, k, v = qkv(1, 19)
    context = AttentionContext(
        query_times=torch.full((2, 1), 7.25), key_times=torch.arange(19.0).expand(2, -1)
    )
    got = module("idw-interp", "NC", neighbours=2)(q, k, v, context)
    assert error(got, 0.75 * v[:, :, 7:8] + 0.25 * v[:, :, 8:9]) <= 1e-7


def test_all_neighbours_are_shepards_interpolation():
    q, k, v = qkv(7, 19)
    context = AttentionContext(query_times=times(7, 1), key_times=times(19, 2))
    distance = (context.query_times[:, :, None] - context.key_times[:, None]).abs()
    weights = 1 / (distance + 1e-8)
    want = (weights / weights.sum(-1, keepdim=True))[:, None] @ v
    for count in (19, 1000):
        got = module("idw-interp", "NC", neighbours=count)(q, k, v, context)
        assert error(got, want) <= 1e-13


@pytest.mark.parametrize("pattern", ["NC", "CC"])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_equals_the_matrix_under_masks(pattern, neighbours):
    q, k, v = qkv(23, 19)
    mask = torch.rand(2, 19, generator=torch.Generator().manual_seed(1)) > 0.5
    attention = module("idw-interp", pattern, neighbours=neighbours)
    for stamps in ({}, {"query_times": times(23, 1), "key_times": times(19, 2)}):
        context = AttentionContext(key_mask=mask, **stamps)
        got = attention(q, k, v, context)
        assert error(got, attention.reference(q, k, v, context)) <= 1e-14
        assert torch.equal(attention(q + 1, 2 * k, v, context), got)


def test_decoding_goes_on_place_by_place():
    q, k, v = qkv(12, 19)
    attention = module("idw-interp", "CC")
    want = attention(q, k, v)
    state = attention.prefill(k, v)
    for t in range(12):
        row, state = attention.step(q[:, :, t : t + 1], None, None, state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-14
    late = AttentionContext(query_positions=torch.tensor([4]))
    assert error(attention.step(q[:, :, :1], None, None, state, late)[0], want[:, :, 4:5]) <= 1e-14


def test_there_is_nothing_to_learn_and_nothing_to_interpolate_in_a_sequence_itself():
    assert not list(module("idw-interp", "NC").parameters())
    with pytest.raises(UnsupportedPatternError, match="its own"):
        module("idw-interp", "NS")
    with pytest.raises(OptionError):
        cab.attention("idw-interp", pattern="NC", heads=1, head_dim=4, neighbours=0)
