"""`cab.attention`: what it takes, checks and says."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

import cab
from cab.errors import OptionError, UsageError
from cab.registries import ATTENTIONS


class Mean(cab.Attention):
    """The mean of the values."""

    def __init__(self, spec, width=3):
        super().__init__(spec)
        self.width = width

    def forward(self, q, k, v, context=None):
        return v.mean(-2, keepdim=True).expand(*q.shape[:-1], v.shape[-1])


def test_a_class_a_function_and_a_name():
    q, k, v = torch.randn(3, 2, 4, 7, 8)
    softmax = ATTENTIONS.load(ATTENTIONS.resolve("softmax"))

    def fused(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    made = [cab.attention(what, pattern="NS", heads=4, head_dim=8)
            for what in ("softmax", softmax, fused)]  # fmt: skip
    outs = [module(q, k, v) for module in made]
    torch.testing.assert_close(outs[0], outs[1])
    torch.testing.assert_close(outs[0], outs[2])
    mine = cab.attention(Mean, pattern="NS", heads=4, head_dim=8, width=5)
    assert mine.width == 5
    with pytest.raises(OptionError, match="depth"):
        cab.attention(Mean, pattern="NS", heads=4, head_dim=8, depth=5)


@pytest.mark.parametrize("what", [torch.nn.Linear, 3, None])
def test_what_is_no_attention(what):
    with pytest.raises(UsageError, match="no attention: give an id"):
        cab.attention(what, pattern="NS", heads=4, head_dim=8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 0}, "heads must be"),
        ({"heads": 2.0}, "heads must be"),
        ({"head_dim": True}, "head_dim must be"),
        ({"max_length": 0}, "max_length must be"),
        ({"layer_index": -1}, "layer_index must be"),
    ],
)
def test_sizes_that_are_none(options, words):
    with pytest.raises(UsageError, match=words):
        cab.attention("lla", **({"pattern": "NS", "heads": 4, "head_dim": 8} | options))


def test_it_says_what_it_was_built_with():
    module = cab.attention("local", pattern="causal-self", heads=4, head_dim=8, window=16)
    assert "local, causal-self, heads=4, head_dim=8, window=16" in repr(module)
    q = torch.randn(1, 4, 5, 8)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert repr(other) == repr(module)
        assert other(q, q, q).equal(module(q, q, q))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 7, 4, 8), r"heads come before tokens here, write k.transpose\(1, 2\)"),
        ((2, 2, 7, 8), r"for grouped queries write k.repeat_interleave\(2, dim=1\)"),
        ((2, 3, 7, 8), r"k has shape \(2, 3, 7, 8\); it must be \(batch, 4 heads, length, 8\)$"),
        ((2, 7, 32), "it must be"),
        ((2, 4, 7, 16), "it must be"),
        ((1, 4, 7, 8), "batches of 2, 1 and 2"),
        ((2, 4, 6, 8), "6 keys and 7 values"),
    ],
)
def test_a_layout_that_does_not_fit_says_what_to_do(shape, words):
    module = cab.attention("softmax", pattern="causal-self", heads=4, head_dim=8)
    x = torch.randn(2, 4, 7, 8)
    with pytest.raises(ValueError, match=words):
        module(x, torch.randn(shape), x)
    with pytest.raises(ValueError, match=words):
        module(q=x, k=torch.randn(shape), v=x)


def test_lengths_that_do_not_fit():
    x, y = torch.randn(1, 4, 7, 8), torch.randn(1, 4, 5, 8)
    kinds = {"heads": 4, "head_dim": 8}
    with pytest.raises(ValueError, match="noncausal-cross"):
        cab.attention("softmax", pattern="NS", **kinds)(y, x, x)
    with pytest.raises(ValueError, match="7 queries and 5 keys"):
        cab.attention("softmax", pattern="CS", **kinds)(x, y, y)
    with pytest.raises(ValueError, match="larger max_length"):
        cab.attention("softmax", pattern="CS", **kinds, max_length=6)(x, x, x)
    assert cab.attention("softmax", pattern="CS", **kinds)(y, x, x).shape == y.shape
    assert cab.attention("softmax", pattern="NC", **kinds)(y, x, x).shape == y.shape


def test_the_package_lists_what_it_has():
    assert {"attention", "bench", "Attention", "Pattern"} <= set(dir(cab))
