"""Local Attender: means, nearest values, grids, borders, masks and decoding."""

import copy

import pytest
import torch
from torch.nn import functional as F

import cab
from attentions.local_attender import _GRID_OFFSETS
from cab import AttentionContext
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

COUNTS = {"5": 5, "9": 9, "13": 13, "17": 17, "25": 25}


def with_logits(attention, bias):
    """The module with the same logits for every query."""
    with torch.no_grad():
        attention.weight.zero_()
        attention.bias.copy_(torch.as_tensor(bias))
    return attention


def test_equal_weights_are_the_local_mean():
    q, k, v = qkv()
    attention = with_logits(module("local-attender", "NS", residual=False, radius=3), 0.0)
    rows = torch.arange(-3, 4) + torch.arange(19)[:, None]
    want = v[:, :, rows.clamp(0, 18)].mean(-2)
    assert error(attention(q, k, v), want) <= 1e-14


def test_one_offset_is_upsampling_by_the_nearest_value():
    q, k, v = qkv(24, 8)
    bias = torch.full((9,), -1e9)
    bias[4] = 0.0
    attention = with_logits(module("local-attender", "NC", residual=False), bias)
    assert error(attention(q, k, v), v.repeat_interleave(3, dim=2)) <= 1e-14


@pytest.mark.parametrize("pattern", ["NS", "CS", "NC"])
def test_weights_sum_to_one_and_keys_are_not_read(pattern):
    q, k, v = qkv(24 if pattern == "NC" else 19, 19)
    attention = module("local-attender", pattern)
    constant = torch.ones_like(v) * v[:, :, :1]
    assert error(attention(q, k, constant), constant[:, :, :1].expand_as(q)) <= 1e-14
    assert torch.equal(attention(q, k, v), attention(q, k + 1, v))


def test_one_offset_without_factor_is_the_identity():
    q, k, v = qkv()
    assert torch.equal(module("local-attender", "NS", radius=0)(q, k, v), v)


@pytest.mark.parametrize("name", COUNTS)
def test_the_published_sets_on_a_grid_are_those_of_an_unfolded_image(name):
    """A factor of 2 and 3 along the axes; values (2, 3, 4 · 5), replicate padding."""
    q, k, v = qkv(8 * 15, 4 * 5)
    attention = module("local-attender", "NC", offsets=name)
    assert len(_GRID_OFFSETS[name]) == len(set(_GRID_OFFSETS[name])) == COUNTS[name]
    context = AttentionContext(query_grid=(8, 15), key_grid=(4, 5))
    logits = q @ attention.weight + attention.bias[:, None]
    logits = logits + F.pad(q, (0, COUNTS[name] - 5))
    weights = logits.softmax(-1).unflatten(2, (4, 2, 5, 3))
    image = F.pad(v.mT.flatten(0, 1).unflatten(-1, (4, 5)), (2, 2, 2, 2), mode="replicate")
    image = image.unflatten(0, (2, 3))
    want = 0
    for n, (y, x) in enumerate(_GRID_OFFSETS[name]):
        near = image[..., 2 + y : 6 + y, 2 + x : 7 + x].movedim(2, -1)
        want = want + weights[..., n, None] * near[:, :, :, None, :, None]
    assert error(attention(q, k, v, context), want.flatten(2, 5)) <= 1e-13


def test_without_grids_a_set_is_on_one_row():
    q, k, v = qkv()
    attention = module("local-attender", "NS", offsets="9")
    one_row = AttentionContext(query_grid=(1, 19))
    assert torch.equal(attention(q, k, v), attention(q, k, v, one_row))
    assert error(attention(q, k, v), attention.reference(q, k, v)) <= 1e-13


@pytest.mark.parametrize(("pattern", "length_q"), [("NS", 19), ("CS", 19), ("NC", 7), ("NC", 40)])
def test_equals_the_matrix_with_gradients(pattern, length_q):
    q, k, v = qkv(length_q, 19)
    keys = torch.rand(2, 19, generator=torch.Generator().manual_seed(1)) > 0.3
    queries = torch.ones(2, length_q, dtype=torch.bool) if pattern == "NC" else keys
    attention = module("local-attender", pattern, radius=2)
    (grad,) = draw(q.shape, seed=1)
    for context in (None, AttentionContext(query_mask=queries, key_mask=keys)):

        def run(form, context=context):
            return lambda q, k, v: form(q, k, v, context) + 0 * k.sum()

        got, found = gradients(run(attention), (q, k, v), grad)
        want, wanted = gradients(run(attention.reference), (q, k, v), grad)
        assert error(got, want) <= 1e-13
        for x, y in zip(found, wanted, strict=True):
            assert error(x, y) <= 1e-12


def test_padding_behind_the_values_moves_no_parent():
    q, k, v = qkv(24, 12)
    attention = module("local-attender", "NC")
    mask = torch.arange(12).expand(2, -1) < 8
    want = attention(q, k[:, :, :8], v[:, :, :8])
    assert error(attention(q, k, v, AttentionContext(key_mask=mask)), want) <= 1e-14


@pytest.mark.parametrize("prompt", [0, 3, 15])
def test_decoding_keeps_the_last_values(prompt):
    q, k, v = qkv()
    attention = module("local-attender", "CS", radius=3)
    want = attention(q, k, v)
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt])
    for t in range(prompt, 19):
        row, state = attention.step(*(x[:, :, t : t + 1] for x in (q, k, v)), state)
        assert error(row, want[:, :, t : t + 1]) <= 1e-14
    assert state.tensors["v"].numel() // 2 == attention.state_size(19)


def test_copies():
    q, k, v = qkv()
    attention = module("local-attender", "NS")
    other = module("local-attender", "NS")
    other.load_state_dict(attention.state_dict())
    assert torch.equal(copy.deepcopy(attention)(q, k, v), other(q, k, v))


def test_options_that_make_no_sense_are_refused():
    for options in ({"offsets": "11"}, {"radius": -1}):
        with pytest.raises(OptionError):
            cab.attention("local-attender", pattern="NS", heads=1, head_dim=4, **options)


def test_rows_of_the_batch_have_queries_of_their_own_number():
    q, k, v = qkv(24, 12)
    attention = module("local-attender", "NC")
    mask = torch.arange(24) < torch.tensor([[24], [16]])
    got = attention(q, k, v, AttentionContext(query_mask=mask))
    alone = attention(q[1:, :, :16], k[1:], v[1:])
    assert error(got[1:, :, :16], alone) <= 1e-14
