"""A window and the first keys: which keys are read, where that is softmax, and the learned sink."""

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention, tokens_first

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG = 90


def inputs(pattern):
    return qkv(37 if pattern.endswith("C") else LONG, LONG)


def holes(pattern):
    rows = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    rows[0, -3:] = False
    own = rows[:, 5:42] if pattern.endswith("C") else rows
    return AttentionContext(query_mask=own, key_mask=rows)


@pytest.mark.parametrize("options", [{"window": LONG}, {"sinks": LONG, "window": 3}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_holds_every_key_is_softmax(pattern, options):
    q, k, v = inputs(pattern)
    attention = module("swa-sink", pattern, **options)
    for context in (None, holes(pattern)):
        want = module("softmax", pattern)(q, k, v, context)
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("sink_logit", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, sink_logit):
    q, k, v = inputs(pattern)
    (g,) = draw(q.shape, seed=3)
    attention = module("swa-sink", pattern, sinks=5, window=9, sink_logit=sink_logit)
    if sink_logit:
        attention.logit.data = torch.tensor([-1.0, 0.5, 2.0]).double()
    for context in (None, holes(pattern)):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


def test_a_row_by_hand():
    q, k, v = inputs("CS")
    attention = module("swa-sink", "CS", sinks=2, window=4)
    context = AttentionContext(key_mask=torch.ones(2, LONG, dtype=torch.bool))
    context.key_mask[0, [0, 38]] = False
    row = 40
    for batch, seen in ((0, [1, 2, 37, 39, 40]), (1, [0, 1, 37, 38, 39, 40])):
        weights = (q[batch, :, row, None] @ k[batch][:, seen].mT * 5**-0.5).softmax(-1)
        want = (weights @ v[batch][:, seen])[:, 0]
        assert error(attention(q, k, v, context)[batch, :, row], want) <= 1e-12


def test_without_first_keys_it_is_local_attention():
    for pattern in ("NS", "CS"):
        q, k, v = inputs(pattern)
        want = module("local", pattern, window=7)(q, k, v)
        assert error(module("swa-sink", pattern, sinks=0, window=7)(q, k, v), want) <= 1e-12


def test_cross_attention_reads_both_ends_of_the_source():
    q, k, v = inputs("NC")
    context = AttentionContext(key_mask=torch.ones(2, LONG, dtype=torch.bool))
    context.key_mask[1, 80:] = False
    for pattern in ("NC", "CC"):
        found = module("swa-sink", pattern, sinks=2, window=3)(q, k, v, context)
        for batch, seen in ((0, [0, 1, 87, 88, 89]), (1, [0, 1, 77, 78, 79])):
            keys, values = k[batch : batch + 1, :, seen], v[batch : batch + 1, :, seen]
            want = module("softmax", pattern)(q[batch : batch + 1], keys, values)
            assert error(found[batch : batch + 1], want) <= 1e-12


@pytest.mark.parametrize("window", [7, 33, LONG])
def test_agrees_with_flash_linear_attention(window):
    naive = flash_linear_attention("ops/attn/naive.py").naive_parallel_attn
    q, k, v = (x.float() for x in inputs("CS"))
    bare = module("swa-sink", "CS", sinks=0, window=window).float()
    want, _ = naive(*tokens_first(q, k, v), window_size=window)
    assert error(bare(q, k, v), want.transpose(1, 2).double()) <= NEAR
    logits = torch.tensor([-1.0, 0.5, 2.0])
    learned = module("swa-sink", "CS", sinks=0, window=window, sink_logit=True).float()
    learned.logit.data = logits
    want, _ = naive(*tokens_first(q, k, v), window_size=window, sink_bias=logits)
    assert error(learned(q, k, v), want.transpose(1, 2).double()) <= NEAR


def test_the_learned_sink_takes_weight_and_learns():
    q, k, v = inputs("CS")
    attention = module("swa-sink", "CS", window=9, sink_logit=True)
    ones = torch.ones_like(v)
    attention.logit.data.fill_(-50.0)
    assert error(attention(q, k, ones), ones) <= 1e-12
    attention.logit.data.fill_(1.0)
    assert attention(q, k, ones).max() < 1
    attention(q, k, v).square().sum().backward()
    assert attention.logit.grad.abs().min() > 0


def test_nothing_later_is_read():
    q, k, v = inputs("CS")
    attention = module("swa-sink", "CS", sinks=3, window=5)
    whole = attention(q, k, v)
    for t in (1, 2, 3, 7, 50):
        cut = (x[:, :, :t] for x in (q, k, v))
        assert error(attention(*cut), whole[:, :, :t]) <= 1e-14


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_a_state_has_the_numbers_that_it_says(pattern):
    _, k, v = inputs(pattern)
    attention = module("swa-sink", pattern, window=9)
    for length in (2, 5, 40):
        state = attention.prefill(k[:, :, :length], v[:, :, :length])
        kept = sum(x[0].numel() for name, x in state.tensors.items() if name[-1] in "kv"
                   and x.ndim == 4)  # fmt: skip
        assert kept == attention.state_size(length)


def test_density_is_the_share_of_the_visible_pairs():
    q, k, _ = inputs("CS")
    attention = module("swa-sink", "CS", sinks=2, window=5)
    share = sum(min(t + 1, 7) for t in range(LONG)) / (LONG * (LONG + 1) / 2)
    assert error(attention.density(q, k), torch.full((2, 3), share, dtype=torch.float64)) <= 1e-12
