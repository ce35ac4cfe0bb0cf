"""Selective attention: sums over earlier queries by hand, and where it is softmax."""

import pytest
import torch

from cab import AttentionContext, Pattern
from tests.attentions.cases import draw, error, gradients, module, qkv


def by_hand(q, k, v, causal, valid):
    """The output of one sequence (H, L, D), token by token."""
    heads, length_q, _ = q.shape
    masked = [0.0] * k.shape[1]
    first = min(n for n in range(k.shape[1]) if valid[n])
    rows = []
    for i in range(length_q):
        keys = [j for j in range(k.shape[1]) if valid[j] and (j <= i or not causal)]
        scores = [[q[h, i] @ k[h, j] / q.shape[-1] ** 0.5 for j in keys] for h in range(heads)]
        row = [] if keys else list(torch.zeros(heads, v.shape[-1], dtype=v.dtype))
        for h in range(heads if keys else 0):
            less = torch.stack([s - masked[j] for s, j in zip(scores[h], keys, strict=True)])
            row.append(less.softmax(0) @ v[h, keys])
        rows.append(torch.stack(row))
        for j, score in zip(keys, scores[0], strict=True):
            if j != first and score > 0 and not (causal and j == i) and (valid[i] or not causal):
                masked[j] = masked[j] + score
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("holes", [[], [0, 1, 5, 9]])
def test_every_token_takes_off_what_the_ones_before_have_found(pattern, holes):
    q, k, v = qkv(19 if pattern == "CS" else 11, 19)
    q, valid = 2 * q, [n not in holes for n in range(19)]
    mask = torch.tensor(valid).expand(2, -1)
    context = AttentionContext(key_mask=mask) if holes else None
    out = module("selective-attn", pattern)(q, k, v, context)
    for batch in range(2):
        want = by_hand(q[batch], k[batch], v[batch], pattern == "CS", valid)
        assert error(out[batch], want) <= 1e-12


@pytest.mark.parametrize("pattern", ["CS", "CC"])
@pytest.mark.parametrize("length", [63, 64, 65, 150])
def test_blocks_hand_on_what_is_masked(pattern, length):
    q, k, v = qkv(length, 80 if pattern == "CC" else length)
    (grad,) = draw(q.shape, seed=3)
    attention = module("selective-attn", pattern)
    out, found = gradients(attention, (q, k, v), grad)
    want_out, want = gradients(attention.reference, (q, k, v), grad)
    assert error(out, want_out) <= 1e-12
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-11


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_where_head_0_finds_nothing_it_is_softmax(pattern):
    q, k, v = qkv(19 if pattern == "CS" else 11, 19)
    q[:, 0] = q[:, 0].abs()
    k[:, 0] = -k[:, 0].abs()
    want = module("softmax", pattern)(q, k, v)
    assert error(module("selective-attn", pattern)(q, k, v), want) <= 1e-12


def test_a_token_that_was_found_once_is_gone_for_all_heads_but_not_for_its_finder():
    q, k, _ = (torch.zeros_like(x) for x in qkv(6, 6))
    v = torch.eye(6, dtype=torch.float64).expand(2, 3, -1, -1)
    k[:, 0, 2, 0] = q[:, 0, 4, 0] = 20.0  # token 4 finds token 2
    out = module("selective-attn", "CS")(q, k, v)
    assert error(out[:, 0, 4], v[:, 0, 2]) <= 1e-9
    without = torch.tensor([0.2, 0.2, 0.0, 0.2, 0.2, 0.2]).double().expand(2, 3, -1)
    assert error(out[:, :, 5], without) <= 1e-7
    even = torch.tensor([0.2] * 5 + [0.0]).double().expand(2, 2, -1)
    assert error(out[:, 1:, 4], even) <= 1e-7


@pytest.mark.parametrize("found", [0, 4])
def test_the_first_token_and_oneself_are_never_masked(found):
    q, k, v = (torch.zeros_like(x) for x in qkv(6, 6))
    v = torch.eye(6, dtype=torch.float64).expand(2, 3, -1, -1)
    k[:, 0, found, 0] = q[:, 0, 4, 0] = 20.0
    out = module("selective-attn", "CS")(q, k, v)
    assert error(out[:, :, 5], torch.full((2, 3, 6), 1 / 6, dtype=torch.float64)) <= 1e-12


def test_it_asks_for_all_queries_and_has_no_steps():
    q, k, v = qkv(7, 19)
    with pytest.raises(NotImplementedError, match="all queries"):
        module("selective-attn", "CS")(q, k, v)
    attention = module("selective-attn", "CC")
    assert not type(attention).decodes()
    assert set(attention.info.patterns) == {Pattern.CAUSAL_SELF, Pattern.CAUSAL_CROSS}
