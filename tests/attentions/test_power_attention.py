"""PowerAttention: its mask, what it reaches, and how much it reads."""

import pytest
import torch

from cab import AttentionContext
from cab.attention_contract import AttentionShape
from cab.density import ReadsShare, densities
from cab.errors import OptionError
from tests.attentions.cases import draw, error, gradients, module, qkv

SIZES = [
    {"block": 1, "window": 1, "sinks": 0},
    {"block": 4, "window": 2, "sinks": 1},
    {"block": 3, "window": 5, "sinks": 2},
    {"block": 8, "window": 1, "sinks": 3},
]


def reads(attention, length):
    """(L, L) bool, which keys have a weight, found by values that name their key."""
    q, k, _ = qkv(length, length)
    names = torch.eye(length).double().expand(2, 3, -1, -1)
    return attention(q, k, names)[0, 0] > 0


def algorithm(length, block, window, sinks, causal):
    """The visible pairs, one by one."""
    sees = torch.zeros(length, length, dtype=torch.bool)
    powers = {1 << p for p in range(length.bit_length())}
    for i in range(length):
        for j in range(length):
            distance = abs(i // block - j // block)
            near = distance < window or distance in powers or j < block * sinks
            sees[i, j] = near and (j <= i or not causal)
    return sees


@pytest.mark.parametrize("options", SIZES)
@pytest.mark.parametrize("pattern", ["NS", "CS"])
@pytest.mark.parametrize("length", [1, 8, 47])
def test_reads_what_the_algorithm_says(pattern, length, options):
    attention = module("power-attention", pattern, **options)
    want = algorithm(length, causal=pattern == "CS", **options)
    assert torch.equal(reads(attention, length), want)


@pytest.mark.parametrize("options", SIZES)
@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_equals_the_reference_with_gradients(pattern, options):
    q, k, v = qkv(47, 47)
    (g,) = draw(q.shape, seed=3)
    attention = module("power-attention", pattern, **options)
    mask = torch.rand(2, 47, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[0, :20] = False
    for context in (None, AttentionContext(query_mask=mask, key_mask=mask)):
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g)
        want_out, want = gradients(lambda *x, c=context: attention.reference(*x, c), (q, k, v), g)
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_a_window_over_all_blocks_is_softmax(pattern):
    q, k, v = qkv(50, 50)
    want = module("softmax", pattern)(q, k, v)
    for window in (7, 1 << 20):
        attention = module("power-attention", pattern, block=8, window=window, sinks=0)
        assert error(attention(q, k, v), want) <= 1e-12
        assert torch.allclose(attention.density(q, k), torch.ones(2, 3).double())


def test_every_pair_is_reached_in_as_many_hops_as_the_length_has_bits():
    attention = module("power-attention", "CS", block=1, window=1, sinks=0)
    edges = reads(attention, 64)
    assert edges.sum(-1).max() <= 6 + 1
    reached = edges
    for _ in range(5):
        reached = (reached.double() @ edges.double()) > 0
    assert torch.equal(reached, torch.ones(64, 64, dtype=torch.bool).tril())


def test_the_settings_of_the_sheet_read_640_keys_at_most():
    # Window 5, a sink, and 8, 16, 32, 64 blocks of 64 tokens back, at 8,192 tokens.
    attention = module("power-attention", "CS", block=64)
    lists, _ = attention._lists(*(torch.empty(1, 1, 8192, 5),) * 2)
    assert int((lists.units >= 0).sum(-1).max()) * 64 == 640


@pytest.mark.parametrize("last", [1, 7, 8, 30])
def test_the_last_queries_alone(last):
    q, k, v = qkv(45, 45)
    attention = module("power-attention", "CS", block=8, window=2)
    whole = attention(q, k, v)
    assert error(attention(q[:, :, -last:], k, v), whole[:, :, -last:]) <= 1e-12


@pytest.mark.parametrize("pattern", ["NS", "CS"])
def test_density_is_the_share_of_the_visible_pairs(pattern):
    q, k, v = qkv(47, 47)
    attention = module("power-attention", pattern, block=4, window=2)
    assert isinstance(attention, ReadsShare)
    sees = algorithm(47, 4, 2, 1, pattern == "CS")
    visible = torch.ones(47, 47, dtype=torch.bool)
    visible = visible.tril() if pattern == "CS" else visible
    mask = torch.rand(2, 47, generator=torch.Generator().manual_seed(1)) > 0.4
    pairs = mask[:, None] & mask[..., None]
    want = (sees & pairs).sum((1, 2)) / (visible & pairs).sum((1, 2)).double()
    context = AttentionContext(query_mask=mask, key_mask=mask)
    assert torch.allclose(attention.density(q, k, context), want[:, None].expand(2, 3))
    mask[1] = False
    assert attention.density(q, k, context)[1].isnan().all()
    with densities(torch.nn.ModuleList([attention, module("softmax", pattern)])) as found:
        attention(q, k, v, context)
        attention(q, k, v)
    assert list(found.calls) == ["0"]
    both = torch.stack([want[0], sees.sum() / visible.sum().double()])
    assert found.mean() == pytest.approx((both[0].item() + 2 * both[1].item()) / 3)
    attention(q, k, v)
    assert len(found.calls["0"]) == 2


def test_density_at_places_of_the_context():
    q, k, _ = qkv(19, 19)
    places = torch.arange(19) * 3
    attention = module("power-attention", "CS", block=4, window=2)
    sees = algorithm(55, 4, 2, 1, True)[places][:, places]
    got = attention.density(q, k, AttentionContext(key_positions=places))
    assert torch.allclose(got, sees.sum() / (19 * 20 / 2) + torch.zeros(2, 3).double())


def test_operations_are_those_of_the_blocks_that_are_read():
    attention = module("power-attention", "CS", block=4, window=2, sinks=0)
    # 12 blocks: each its own, and those 1, 2, 4 and 8 before it.
    blocks = 12 + 11 + 10 + 8 + 4
    assert attention.flops(AttentionShape(1, 3, 48, 48, 5, 5)) == 2 * 3 * blocks * 16 * 10


@pytest.mark.parametrize(("name", "value"), [("block", 0), ("window", 0), ("sinks", -1)])
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(OptionError, match=name):
        module("power-attention", "CS", **{name: value})
