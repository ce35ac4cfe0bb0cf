"""Native sparse attention: each branch alone, the choice of blocks, and where it is softmax."""

import importlib.util
import sys
import types
import warnings

import pytest
import torch

import cab
from attentions.shared.compressed_keys import Runs
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention, tokens_first

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG = 90
SMALL = {"run": 8, "stride": 4, "block": 8, "blocks": 4, "window": 9}
COARSE, SELECTED, WINDOW = range(3)


def build(pattern, only=None, **options):
    """With gates that let one branch alone through, or those of a fixed seed."""
    torch.manual_seed(0)
    attention = module("nsa", pattern, **(SMALL | options))
    if only is not None:
        attention.gates.weight.data.zero_()
        attention.gates.bias.data.fill_(-1e4)
        attention.gates.bias.data[only::3] = 1e4
    return attention


def tokens(pattern, masked=False):
    q, k, v = qkv(37 if pattern.endswith("C") else LONG, LONG)
    x, y = draw((2, q.shape[2], 15), (2, LONG, 15), seed=5)
    context = AttentionContext(query_input=x, key_input=y if pattern.endswith("C") else x)
    if masked:
        rows = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) > 0.3
        rows[1, :17] = False
        rows[0, -3:] = False
        context.key_mask = rows
        context.query_mask = rows[:, 5:42] if pattern.endswith("C") else rows
    return q, k, v, context


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_all_blocks_under_their_gate_alone_are_softmax(pattern, masked):
    q, k, v, context = tokens(pattern, masked)
    valid = context.query_mask[:, None, :, None] if masked else 1
    want = module("softmax", pattern)(q, k, v, context) * valid
    attention = build(pattern, only=SELECTED, blocks=12)
    assert error(attention(q, k, v, context) * valid, want) <= 1e-12
    attention = build(pattern, only=WINDOW, window=LONG)
    assert error(attention(q, k, v, context) * valid, want) <= 1e-12


@pytest.mark.parametrize("options", [{}, {"compression": "mlp"}, {"run": 12, "block": 16}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, options):
    for masked in (False, True):
        q, k, v, context = tokens(pattern, masked)
        (g,) = draw(q.shape, seed=3)
        valid = context.query_mask[:, None, :, None] if masked else 1
        attention = build(pattern, **options)
        out, found = gradients(lambda *x, f=attention, c=context: f(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, f=attention, c=context: f.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


def test_a_window_is_local_attention():
    q, k, v, context = tokens("CS")
    want = module("local", "CS", window=9)(q, k, v)
    assert error(build("CS", only=WINDOW)(q, k, v, context), want) <= 1e-12


def test_what_is_not_ended_is_in_no_compressed_key():
    q, k, v, context = tokens("CS")
    out = build("CS", only=COARSE)(q, k, v, context)
    assert not out[:, :, :7].any()
    assert error(out[:, :, 7], v[:, :, :8].mean(2)) <= 1e-12
    keys = torch.stack([k[:, :, :8].mean(2), k[:, :, 4:12].mean(2)], 2)
    values = torch.stack([v[:, :, :8].mean(2), v[:, :, 4:12].mean(2)], 2)
    want = module("softmax", "NC")(q[:, :, 11:12], keys, values)
    assert error(out[:, :, 11:12], want) <= 1e-12


def test_a_block_has_the_weight_of_the_runs_that_overlap_it():
    cut = Runs(size=12, stride=4, block=8)
    # Runs begin one stride apart, from two before the block to its last stride.
    assert cut.overlaps() == [1, 2, 2, 1]
    scores = torch.arange(6.0)
    assert cut.count(32) == 6
    rows = cut.by_block(scores, cut.blocks(32))
    inf = float("inf")
    assert rows.tolist() == [[-inf, -inf, 0, 1], [0, 1, 2, 3], [2, 3, 4, 5], [4, 5, -inf, -inf]]


def test_the_stride_divides_runs_and_blocks():
    with pytest.raises(ValueError, match="must divide"):
        build("CS", run=9)


@pytest.fixture
def naive(monkeypatch):
    """Theirs, of which what needs triton to be imported is not called here."""
    spec = importlib.util.find_spec("fla")
    for name in ("fla", "fla.ops", "fla.ops.utils", "fla.ops.utils.pooling"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["fla"].__spec__ = spec
    sys.modules["fla.ops.utils"].prepare_chunk_offsets = None
    sys.modules["fla.ops.utils.pooling"].mean_pooling = None
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        yield flash_linear_attention("ops/nsa/naive.py")


def test_agrees_with_flash_linear_attention(naive):
    """They have runs that are the blocks, with the first, own and previous one among the n."""
    size, count = 8, 5
    q, k, v, context = tokens("CS")
    q, k, v = (x[:, :, :88].float() for x in (q, k, v))
    context = AttentionContext(query_input=context.query_input[:, :88].float())
    options = {"run": size, "stride": size, "block": size, "blocks": count}
    theirs, means = tokens_first(q, k, v), (x.unflatten(2, (-1, size)).mean(3) for x in (k, v))
    coarse_k, coarse_v = tokens_first(*means)
    want, _ = naive.naive_nsa_compression(theirs[0], coarse_k, coarse_v, size, 5**-0.5)
    coarse = build("CS", only=COARSE, **options).float()
    assert error(coarse(q, k, v, context), want.transpose(1, 2).double()) <= NEAR
    blocks = naive.naive_nsa_topk(theirs[0], coarse_k, count, size, 5**-0.5)
    want = naive.naive_nsa_selection(*theirs, blocks, size)
    selected = build("CS", only=SELECTED, **options).float()
    assert error(selected(q, k, v, context), want.transpose(1, 2).double()) <= NEAR


def test_gates_and_networks_learn():
    q, k, v, context = tokens("CS")
    attention = build("CS", compression="mlp")
    attention(q, k, v, context).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_without_layer_inputs_it_says_what_to_give():
    with pytest.raises(ValueError, match="AttentionContext"):
        build("CS")(*qkv(19, 19))


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_what_is_later(pattern):
    q, k, v, context = tokens(pattern)
    attention = build(pattern)
    whole = attention(q, k, v, context)
    for t in (1, 7, 8, 9, 17, 24, 36):
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        first = AttentionContext(query_input=context.query_input[:, :t])
        assert error(attention(q[:, :, :t], *cut, first), whole[:, :, :t]) <= 1e-12


def test_density_counts_keys_once_and_compressed_keys_too():
    q, k, _, _ = tokens("CS")
    attention = build("CS", blocks=12)
    assert attention.density(q, k).tolist() == [[1.0] * 3] * 2
    few = build("CS", blocks=1, window=1)
    # Of the first block as far as it is there, the query itself, and compressed keys.
    pairs = sum(min(t + 1, 8) + (t >= 8) + max(0, (t + 1 - 8) // 4 + 1) for t in range(LONG))
    want = torch.full((2, 3), pairs / (LONG * (LONG + 1) / 2), dtype=torch.float64)
    assert error(few.density(q, k), want) <= 1e-12


def test_single_precision_chooses_the_blocks_of_double_precision():
    # A run that lies in two blocks and outweighs all others leaves them almost equal.
    q, k, v = (8 * x.float() for x in draw((1, 2, 600, 16), (1, 2, 400, 16), (1, 2, 400, 16)))
    torch.manual_seed(0)
    attention = cab.attention("nsa", pattern="CC", heads=2, head_dim=16)
    wide, short = (
        attention._compressed(*(x.to(dtype) for x in (q, k, v)), None)[-1].sort(-1).values
        for dtype in (torch.float64, torch.float32)
    )
    assert (wide != short).any(-1).sum() == 0
