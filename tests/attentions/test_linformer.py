"""Linformer: the published layer at its own length, and any other length by stretching."""

import pytest
import torch

import cab
from cab import AttentionContext, Pattern
from tests.attentions.cases import draw, error, module, qkv

PATTERNS = ["NS", "NC"]
LONG = 19


def inputs(pattern, dim=5):
    return qkv(13 if pattern == "NC" else LONG, LONG, dim)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_at_as_many_tokens_as_places_it_is_the_published_layer(pattern, shared):
    q, k, v = inputs(pattern)
    attention = module("linformer", pattern, rows=4, places=LONG, shared=shared)
    e, f = attention.matrices[0], attention.matrices[-1]
    assert (e is f or torch.equal(e, f)) == shared
    want = (q @ (e @ k).mT / 5**0.5).softmax(-1) @ (f @ v)
    assert error(attention(q, k, v), want) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_matrix_of_unit_rows_is_softmax(pattern):
    q, k, v = inputs(pattern)
    attention = module("linformer", pattern, rows=LONG, places=LONG)
    attention.matrices.data[0] = torch.eye(LONG)
    assert error(attention(q, k, v), module("softmax", pattern)(q, k, v)) <= 1e-12


@pytest.mark.parametrize("length", [1, 2, 5, 63, 64, 65, 200])
def test_even_columns_are_means_at_every_length(length):
    q, k, v = qkv(7, length)
    attention = module("linformer", "NC", rows=3, places=64)
    attention.matrices.data.fill_(1 / 64)
    want = v.mean(-2, keepdim=True).expand(*q.shape[:3], -1)
    assert error(attention(q, k, v), want) <= 1e-12


def test_twice_as_many_tokens_that_come_in_pairs_give_nearly_the_same():
    # A smooth row weighs both of a pair about half as much as the one of which they are copies:
    # off by an eighth of its bend between columns, and the steepest wave here bends by (pi / 21)^2.
    q, k, v = qkv(7, 64)
    attention = module("linformer", "NC", rows=3, places=64)
    waves = torch.linspace(0, torch.pi, 64).double()
    attention.matrices.data[0] = torch.stack([(n * waves).cos() for n in (1, 2, 3)]) / 64
    twice = (x.repeat_interleave(2, dim=-2) for x in (k, v))
    assert error(attention(q, *twice), attention(q, k, v)) <= (torch.pi / 21) ** 2 / 8


def test_columns_between_two_are_their_mean():
    attention = module("linformer", "NS", rows=2, places=3)
    (matrix,) = attention.matrices
    columns = attention._stretched(torch.tensor([6]), 6, torch.float64)[0, 0]
    at = [0.0, 0.25, 0.75, 1.25, 1.75, 2.0]
    for column, place in enumerate(at):
        low, share = min(int(place), 1), place - min(int(place), 1)
        want = ((1 - share) * matrix[:, low] + share * matrix[:, low + 1]) / 2
        assert error(columns[:, column], want) <= 1e-12


def test_padding_behind_a_sequence_does_not_stretch_it():
    q, k, v = inputs("NS")
    attention = module("linformer", "NS")
    mask = torch.arange(LONG) < torch.tensor([[LONG], [11]])
    out = attention(q, k, v, AttentionContext(mask, mask))
    alone = attention(*(x[1:, :, :11] for x in (q, k, v)))
    assert error(out[1:, :, :11], alone) <= 1e-12
    assert error(out[:1], attention(q[:1], k[:1], v[:1])) <= 1e-12


def test_outputs_do_not_know_how_long_a_sequence_may_be():
    q, k, v = (x.float() for x in draw(*[(1, 2, 33, 4)] * 3))
    found = []
    for most in (33, 4096):
        torch.manual_seed(0)
        attention = cab.attention(
            "linformer", pattern="NS", heads=2, head_dim=4, max_length=most
        ).eval()
        found.append(attention(q, k, v))
    assert torch.equal(*found)


def test_it_is_claimed_for_noncausal_patterns_alone():
    info = type(module("linformer", "NS")).info
    assert set(info.patterns) == {Pattern.NONCAUSAL_SELF, Pattern.NONCAUSAL_CROSS}
    assert set(info.absent) == {Pattern.CAUSAL_SELF, Pattern.CAUSAL_CROSS}
