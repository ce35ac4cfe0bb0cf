"""What is claimed to be cheap is: no matrix between all tokens is in memory, and an option that is
far larger than the sequence costs what the sequence costs.
"""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import cab
from cab import AttentionContext, AttentionSpec, Family
from cab.attention_contract import AttentionShape, build_attention
from cab.density import ReadsShare
from cab.registries import ATTENTIONS
from cab.scoring.growth import claimed_exponent
from runners.efficiency.trace import traced_peak
from tests.attentions.cases import error, module, qkv
from tests.attentions.registered import claims

OPTIONS = [
    ("local", "CS", {"window": 64}, {"window": 1 << 16}),
    ("local", "NS", {"window": 64}, {"window": 1 << 16}),
    ("long-short", "CS", {"causal_window": 64, "chunk": 64}, {"causal_window": 1 << 16}),
    ("long-short", "NS", {"window": 64}, {"window": 1 << 16}),
    ("nystromformer", "NS", {"conv": 127}, {"conv": (1 << 16) + 1}),
    ("nystromformer", "NS", {"landmarks": 64}, {"landmarks": 1 << 16}),
    ("lara", "NS", {"landmarks": 64}, {"landmarks": 1 << 16}),
]


def operations(attention, inputs):
    """Multiply-adds of the products of a forward and a backward pass."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    with FlopCounterMode(display=False) as counter:
        attention(*leaves).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("name", "pattern", "fitting", "beyond"), OPTIONS)
def test_what_lies_beyond_the_sequence_costs_nothing(name, pattern, fitting, beyond):
    inputs = qkv(64, 64)
    attention = module(name, pattern, **beyond)
    least = operations(module(name, pattern, **fitting), inputs)
    assert 0 < operations(attention, inputs) <= 1.5 * least
    want = attention.reference(*inputs)
    assert error(attention(*inputs), want) <= 1e-9


@pytest.mark.parametrize("length_q", [1, 5, 64])
def test_the_last_queries_of_a_window_beyond_the_sequence(length_q):
    q, k, v = qkv(length_q, 64)
    attention = module("local", "CS", window=100)
    assert error(attention(q, k, v), module("softmax", "CS")(q, k, v)) <= 1e-12
    assert operations(attention, (q, k, v)) <= 8 * operations(
        module("softmax-exact", "CS"), qkv(64, 64)
    )


def test_stated_operations_do_not_count_what_is_beyond():
    shape = AttentionShape(1, 3, 64, 64, 5, 5)
    every_pair = module("softmax-exact", "NS").flops(shape)
    assert module("local", "NS", window=1 << 16).flops(shape) == every_pair
    fitting, beyond = (module("long-short", "NS", window=w) for w in (64, 1 << 16))
    assert beyond.flops(shape) == fitting.flops(shape)


LENGTHS, LONG = (1024, 2048), (4096, 8192)
WIDTH = 8
SLACK = 0.3
"""Exponents at these lengths are off by as much: blocks, and what is paid once"""
DENSE = 4
"""Bytes for each pair of tokens: a matrix in float32"""


def saves_memory(cls, pattern):
    """Whether a fast path is to have no matrix between all tokens: it claims less, or reads a part
    of the pairs. A record that claims a matrix is taken at its word.
    """
    time, memory = (claimed_exponent(t, pattern.causal) for t in (cls.info.time, cls.info.memory))
    reads_a_part = issubclass(cls, ReadsShare)
    return reads_a_part or any(power is not None and power < 2 for power in (time, memory))


def in_tiles(cls, pattern):
    """Whether the tiles that scores are computed in hold more pairs than a short sequence has."""
    return cls.info.family is Family.REGRESSION


def peak(cls, pattern, length):
    """Bytes that a forward and a backward pass have in memory at a time, of one head."""
    spec = AttentionSpec(pattern, 1, WIDTH, max_length=length, embed_dim=WIDTH)
    attention = build_attention(cls, spec).eval()
    q, k, v = (torch.randn(1, 1, length, WIDTH, requires_grad=True) for _ in range(3))
    inputs = torch.randn(1, length, WIDTH)
    context = AttentionContext(query_input=inputs, key_input=inputs)

    def forward_backward():
        out = attention(q, k, v, context)
        if out.requires_grad:  # not so where nothing of the sequence is read
            out.sum().backward()
        return out

    return traced_peak(forward_backward)


def holds_no_matrix(cls, pattern, lengths):
    claimed = claimed_exponent(cls.info.memory, pattern.causal)
    most = SLACK + (1 if claimed is None or claimed >= 2 else max(claimed, 1))
    short, long = (peak(cls, pattern, length) for length in lengths)
    assert long <= DENSE * lengths[1] ** 2
    assert math.log2(max(long, 1) / max(short, 1)) <= most


@pytest.mark.parametrize(
    ("cls", "pattern"), claims(lambda c, p: saves_memory(c, p) and not in_tiles(c, p))
)
def test_no_matrix_between_all_tokens_is_in_memory(cls, pattern):
    holds_no_matrix(cls, pattern, LENGTHS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "pattern"), claims(lambda c, p: saves_memory(c, p) and in_tiles(c, p))
)
def test_tiles_do_not_grow_with_the_sequence(cls, pattern):
    holds_no_matrix(cls, pattern, LONG)


@pytest.mark.parametrize("pattern", list(cab.Pattern))
def test_a_matrix_between_all_tokens_is_noticed(pattern):
    dense = ATTENTIONS.load(ATTENTIONS.resolve("softmax-exact"))
    assert not saves_memory(dense, pattern)
    with pytest.raises(AssertionError):
        holds_no_matrix(dense, pattern, LENGTHS)
