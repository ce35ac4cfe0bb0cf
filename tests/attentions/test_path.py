"""PaTH attention: products of reflections by hand, the reference of flash-linear-attention, and
softmax where nothing is reflected.
"""

import pytest
import torch

from attentions.path import _attend, _parts
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention, tokens_first

NAIVE = "ops/path_attn/naive.py"
WIDTH = 15
LENGTHS = [1, 2, 63, 64, 65, 130, 200]


def tokens(length):
    """q, k, v and a context with the layer's input."""
    (x,) = draw((2, length, WIDTH), seed=5)
    return *qkv(length, length), AttentionContext(query_input=x, key_input=x)


def loud(attention):
    """With matrices that do more than at first."""
    with torch.no_grad():
        attention.beta.weight.mul_(3)
        attention.taps.mul_(2)
    return attention


@pytest.mark.parametrize("length", LENGTHS)
def test_agrees_with_flash_linear_attention(length):
    q, k, v, context = tokens(length)
    attention = loud(module("path", "CS"))
    w, beta = attention._reflections(context, torch.float64)
    naive = flash_linear_attention(NAIVE).naive_path_attn
    open_gates = torch.zeros(2, length, 3)
    theirs = naive(*tokens_first(q, k, v, w, beta[..., 0]), open_gates, 5**-0.5)
    assert error(theirs.transpose(1, 2), attention(q, k, v, context)) <= NEAR


@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_are_the_sequence_token_by_token(length):
    q, k, v, context = tokens(length)
    (grad,) = draw(q.shape, seed=3)
    attention = loud(module("path", "CS"))

    def run(function):
        def called(q, k, v, x):
            return function(q, k, v, AttentionContext(query_input=x, key_input=x)) + 0 * x.sum()

        return gradients(called, (q, k, v, context.key_input), grad)

    (out, found), (want_out, want) = run(attention), run(attention.reference)
    assert error(out, want_out) <= 1e-12
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-10


def test_between_a_key_and_a_query_stand_the_reflections_of_the_tokens_on_the_way():
    q, k, v, context = tokens(9)
    attention = loud(module("path", "CS"))
    batch, head, row = 1, 2, 7
    x = context.key_input[batch]
    inputs = x @ attention.narrow.weight.mT @ attention.widen.weight.mT
    scores = []
    for key in range(row + 1):
        vector = k[batch, head, key]
        for s in range(key + 1, row + 1):
            mixed = sum(
                attention.taps[:, 2 - lag] * inputs[s - lag] for lag in range(3) if s >= lag
            )
            w = torch.nn.functional.silu(mixed)[head * 5 : head * 5 + 5]
            w = w / w.norm()
            beta = 2 * (attention.beta.weight[head] @ x[s] + attention.beta.bias[head]).sigmoid()
            vector = (torch.eye(5).double() - beta * torch.outer(w, w)) @ vector
        scores.append(q[batch, head, row] @ vector / 5**0.5)
    want = torch.stack(scores).softmax(0) @ v[batch, head, : row + 1]
    # What is added to the length of w is 1e-6.
    assert error(attention(q, k, v, context)[batch, head, row], want) <= 1e-4


@pytest.mark.parametrize("length", [5, 64, 150])
def test_without_strength_it_is_softmax(length):
    q, k, v, context = tokens(length)
    attention = module("path", "CS")
    attention.beta.weight.data.zero_()
    attention.beta.bias.data.fill_(-50.0)
    assert error(attention(q, k, v, context), module("softmax", "CS")(q, k, v)) <= 1e-12


def test_two_equal_reflections_undo_each_other():
    q, k, v = qkv(100, 100)
    w = torch.nn.functional.normalize(draw((2, 3, 1, 5))[0], dim=-1).expand(-1, -1, 100, -1)
    beta = torch.zeros(2, 3, 100, 1, dtype=torch.float64)
    beta[..., [70, 71], :] = 2.0
    parts = _parts(q, k, w, beta)
    last = slice(64, 100)
    out = _attend(
        parts.inside[:, :, 1, :36, :36], parts.queries[:, :, 1, :36], parts.keys[:, :, :1],
        parts.across[:, :, :1], v, None,
    )  # fmt: skip
    want = module("softmax", "CS")(q, k, v)[..., last, :]
    inside = [n for n in range(36) if n != 6]  # token 70 stands between the two
    assert error(out[..., inside[:6], :], want[..., inside[:6], :]) <= 1e-12
    keys = torch.cat([k[..., :70, :], k[..., 71:, :]], dim=-2)
    # Of the rows behind both, only key 70 has passed one alone.
    mirrored = (
        k[..., 70:71, :] - 2 * (k[..., 70:71, :] * w[..., :1, :]).sum(-1, True) * w[..., :1, :]
    )
    keys = torch.cat([keys[..., :70, :], mirrored, keys[..., 70:, :]], dim=-2)
    behind = module("softmax", "CS")(q, keys, v)[..., 71:, :]
    assert error(out[..., 7:, :], behind) <= 1e-12


@pytest.mark.parametrize("count", [1, 3, 64, 99])
def test_the_last_queries_alone(count):
    q, k, v, context = tokens(130)
    attention = loud(module("path", "CS"))
    whole = attention(q, k, v, context)
    assert error(attention(q[:, :, -count:], k, v, context), whole[:, :, -count:]) <= 1e-12


@pytest.mark.parametrize("prompt", [0, 1, 63, 64, 100])
def test_steps_carry_the_cached_keys(prompt):
    q, k, v, context = tokens(110)
    x = context.key_input
    attention = loud(module("path", "CS"))
    want = attention(q, k, v, context)
    past = AttentionContext(key_input=x[:, :prompt])
    state = attention.prefill(k[:, :, :prompt], v[:, :, :prompt], past)
    for t in range(prompt, 110):
        own = slice(t, t + 1)
        token = AttentionContext(query_input=x[:, own], key_input=x[:, own])
        row, state = attention.step(*(y[:, :, own] for y in (q, k, v)), state, token)
        assert error(row, want[:, :, own]) <= 1e-11
    assert attention.state_size(110) == sum(state.tensors[n][0].numel() for n in state.tensors)


def test_long_sequences_keep_their_digits_in_float32():
    q, k, v, context = tokens(1500)
    attention = loud(module("path", "CS"))
    want = attention(q, k, v, context)
    x = context.key_input.float()
    short = attention.float()(*(y.float() for y in (q, k, v)), AttentionContext(key_input=x))
    assert error(short, want) <= 2e-5


def test_without_layer_inputs_it_says_what_to_give():
    q, k, v, _ = tokens(9)
    attention = module("path", "CS")
    for call in (lambda: attention(q, k, v), lambda: attention.prefill(k, v)):
        with pytest.raises(ValueError, match="AttentionContext"):
            call()
