"""An option far larger than the sequence costs what the sequence costs."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from cab.attention_contract import AttentionShape
from tests.attentions.cases import error, module, qkv

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
