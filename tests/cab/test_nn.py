"""`cab.nn.MultiheadAttention` is torch's module where the attention is softmax."""

import copy

import pytest
import torch
from torch import nn

import cab
from cab.errors import UnsupportedPatternError
from cab.nn import MultiheadAttention

E, H = 24, 4
CAUSAL = torch.ones(9, 9, dtype=torch.bool).triu(1)


def pair(pattern="noncausal-self", **options):
    """Ours with softmax and torch's, with the same weights, in float64."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(E, H, dtype=torch.float64, **options)
    ours = MultiheadAttention(
        E, H, dtype=torch.float64, attention="softmax", pattern=pattern, **options
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) / 5)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def tokens(length, batch=3, width=E, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, batch, width, generator=generator, dtype=torch.float64)


def close(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", ["length first", "batch first", "no batch"])
@pytest.mark.parametrize("padding", [None, "bool", "added"])
@pytest.mark.parametrize("average", [True, False])
def test_self_attention_and_its_map_are_torchs(layout, padding, average):
    ours, theirs = pair(batch_first=layout == "batch first", bias=average)
    x = tokens(9)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[1, 6:], mask[2, :2] = True, True
    if layout == "batch first":
        x = x.transpose(0, 1)
    if layout == "no batch":
        x, mask = x[:, 1], mask[1]
    if padding == "added":
        mask = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -torch.inf)
    options = {
        "key_padding_mask": None if padding is None else mask,
        "average_attn_weights": average,
        "need_weights": True,
    }
    (got, got_map), (want, want_map) = (m(x, x, x, **options) for m in (ours, theirs))
    kept = mask == 0 if padding is not None else torch.ones_like(mask, dtype=torch.bool)
    valid = kept.T if layout == "length first" else kept
    close(got[valid], want[valid])  # what a query that is padding gets means nothing
    assert got_map.shape == want_map.shape
    rows = kept[:, None] if layout != "no batch" and not average else kept
    rows = rows.expand(want_map.shape[:-1])
    torch.testing.assert_close(got_map[rows].double(), want_map[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("added", [False, True])
def test_causal_self_attention_is_torchs(added):
    ours, theirs = pair("causal-self")
    x = tokens(9).requires_grad_()
    mask = torch.zeros(9, 9).double().masked_fill(CAUSAL, -torch.inf) if added else CAUSAL
    want = theirs(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
    for given in ({}, {"attn_mask": mask}, {"attn_mask": mask, "is_causal": True}):
        got = ours(x, x, x, **given)[0]
        close(got, want)
        for a, b in zip(slopes(got, ours, x), slopes(want, theirs, x), strict=True):
            close(a, b)


def slopes(out, module, x):
    return torch.autograd.grad(out.square().sum(), (x, *module.parameters()), retain_graph=True)


@pytest.mark.parametrize("widths", [{}, {"kdim": 10, "vdim": 7}])
def test_cross_attention_is_torchs(widths):
    ours, theirs = pair("noncausal-cross", **widths)
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in theirs.named_parameters()
    }
    q, k, v = (
        tokens(5),
        tokens(8, width=widths.get("kdim", E)),
        tokens(8, width=widths.get("vdim", E)),
    )
    padding = torch.zeros(3, 8, dtype=torch.bool)
    padding[0, 5:] = True
    close(ours(q, k, v, padding)[0], theirs(q, k, v, padding, need_weights=False)[0])


def test_another_attention_trains_with_its_own_parameters():
    torch.manual_seed(0)
    layer = MultiheadAttention(
        E, H, attention="lla", pattern="causal-self", batch_first=True, max_length=64
    )
    assert any(name.startswith("attention.") for name, _ in layer.named_parameters())
    x = tokens(9).transpose(0, 1).float()
    layer(x, x, x)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert copy.deepcopy(layer)(x, x, x)[0].equal(layer(x, x, x)[0])
    assert "24, 4, batch_first=True" in repr(layer)
    assert "causal-self" in repr(layer)


def test_layer_inputs_reach_attentions_that_read_them():
    layer = MultiheadAttention(E, H, attention="gated-softmax", pattern="noncausal-self")
    x = tokens(9).float()
    assert layer(x, x, x)[0].shape == x.shape


def test_what_has_no_map_says_so():
    class Squared(cab.Attention):
        """Not linear in its values."""

        def forward(self, q, k, v, context=None):
            return v.square()

    layer = MultiheadAttention(E, H, attention=Squared)
    x = tokens(9).float()
    assert layer(x, x, x)[1] is None
    with pytest.raises(NotImplementedError, match="squared has no attention map"):
        layer(x, x, x, need_weights=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.1}, "dropout=0.1"),
        ({"add_zero_attn": True}, "add_zero_attn"),
        ({"add_bias_kv": True}, "add_bias_kv"),
        ({"kdim": 3}, "self attention has one input"),
        ({"num_heads": 5}, "no multiple of num_heads 5"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_built(options, words):
    with pytest.raises(ValueError, match=words):
        MultiheadAttention(**({"embed_dim": E, "num_heads": H} | options))


def test_a_pattern_that_an_entry_lacks_is_refused():
    with pytest.raises(UnsupportedPatternError, match="local"):
        MultiheadAttention(E, H, attention="local", pattern="causal-cross")


def test_calls_that_do_not_fit_say_what_to_do():
    x, y = tokens(9).float(), tokens(8).float()
    plain = MultiheadAttention(E, H)
    causal = MultiheadAttention(E, H, pattern="causal-self")
    with pytest.raises(ValueError, match="noncausal-cross"):
        plain(x, y, y)
    with pytest.raises(ValueError, match="not the causal mask"):
        plain(x, x, x, attn_mask=CAUSAL)
    with pytest.raises(ValueError, match="not the causal mask"):
        causal(x, x, x, attn_mask=torch.zeros(9, 9).masked_fill(CAUSAL, -torch.inf) + 1)
    with pytest.raises(ValueError, match="causal-self"):
        plain(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match=r"key_padding_mask has shape \(9, 3\)"):
        plain(x, x, x, torch.zeros(9, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="only 0 and -inf"):
        plain(x, x, x, torch.full((3, 9), -1.0))
    with pytest.raises(ValueError, match="3, 2 and 2 dimensions"):
        plain(x, x[:, 0], x[:, 0])
