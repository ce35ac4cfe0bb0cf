"""Entries of ours beside plain forms that others publish, for those whose own tests have none."""

from types import SimpleNamespace

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, module, qkv
from tests.attentions.upstream import (
    NEAR,
    attention_gym,
    flash_linear_attention,
    tokens_first,
)


def with_input(length, dim=5, seed=2):
    (x,) = draw((2, length, 3 * dim), seed=seed)
    return AttentionContext(query_input=x, key_input=x)


@pytest.mark.parametrize("pattern", ["CS", "NS"])
@pytest.mark.parametrize("length", [7, 90])
def test_parallax_is_that_of_flash_linear_attention(pattern, length):
    naive = flash_linear_attention("ops/parallax/naive.py").naive_parallax
    attention, context = module("parallax", pattern), with_input(length)
    q, k, v = qkv(length, length)
    prepared, keys, probe = attention._prepare(q, k, context)
    want = naive(
        *tokens_first(prepared, probe, keys, v), scale=attention.scale, causal=pattern == "CS"
    )
    assert error(attention(q, k, v, context), want.transpose(1, 2)) <= NEAR


@pytest.mark.parametrize("length", [7, 90, 200])
def test_abc_is_that_of_flash_linear_attention(length):
    """Theirs has one control for keys and values: as ours where the values are the keys."""
    naive = flash_linear_attention("ops/abc/naive.py").naive_recurrent_abc
    attention = module("abc", "CS", slots=6)
    with torch.no_grad():
        attention.control_v.copy_(attention.control_k)
    q, k, _ = qkv(length, length)
    want, _ = naive(q, k, k, k @ attention.control_k, scale=attention.scale)
    assert error(attention(q, k, k), want) <= NEAR


@pytest.mark.parametrize("length", [7, 90, 200])
def test_linear_elu_is_the_normalised_recurrence_of_flash_linear_attention(length):
    naive = flash_linear_attention("ops/linear_attn/naive.py").naive_recurrent_linear_attn
    q, k, v = qkv(length, length)
    features = (torch.nn.functional.elu(x) + 1 for x in (q, k))
    want, _ = naive(*tokens_first(*features, v), scale=1.0, normalize=True)
    assert error(module("linear-elu", "CS")(q, k, v), want.transpose(1, 2)) <= NEAR


@pytest.mark.parametrize("window", [1, 4, 16])
def test_local_sees_the_sliding_window_of_attention_gym(window):
    """Theirs counts the keys before the query, ours the query too."""
    sees = attention_gym("masks/sliding_window.py").generate_sliding_window(window - 1)
    q, k, v = qkv(40, 40)
    place = torch.arange(40)
    mask = sees(place[0], place[0], place[:, None], place)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    assert error(module("local", "CS", window=window)(q, k, v), want) <= 1e-12


def eager_mask(length, window):
    place = torch.arange(length)
    age = place[:, None] - place
    hidden = (age < 0) | (age >= window)
    return torch.zeros(length, length, dtype=torch.float64).masked_fill(hidden, -torch.inf)


def test_a_learned_sink_is_that_of_gpt_oss_in_transformers():
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    attention = module("swa-sink", "CS", sinks=0, window=8, sink_logit=True)
    with torch.no_grad():
        attention.logit.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    q, k, v = qkv(40, 40)
    layer = SimpleNamespace(num_key_value_groups=1, sinks=attention.logit, training=False)
    want, _ = eager_attention_forward(layer, q, k, v, eager_mask(40, 8), scaling=5**-0.5)
    assert error(attention(q, k, v), want.transpose(1, 2)) <= 1e-12
