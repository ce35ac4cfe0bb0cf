"""Forward and backward of every attention on its first pattern: `make bench`.

For ratios to softmax use `cab run --measure latency`, which times in turns.
"""

import pytest
import torch

from cab import AttentionSpec
from cab.attention_contract import build_attention
from cab.registries import ATTENTIONS


@pytest.mark.parametrize("length", [512, 2048])
@pytest.mark.parametrize("name", list(ATTENTIONS.entries()))
def test_forward_backward(benchmark, name, length):
    entry = ATTENTIONS.resolve(name)
    pattern = next(iter(entry.info.patterns))
    module = build_attention(ATTENTIONS.load(entry), AttentionSpec(pattern, 4, 32))
    benchmark.group = f"forward + backward, L={length}"

    def setup():
        return [torch.randn(1, 4, length, 32, requires_grad=True) for _ in range(3)], {}

    def call(q, k, v):
        module(q, k, v).sum().backward()

    benchmark.pedantic(call, setup=setup, rounds=5, warmup_rounds=1)
