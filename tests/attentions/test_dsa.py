"""DeepSeek sparse attention: the keys that an indexer chooses, and what it learns from."""

import math

import pytest
import torch

from attentions.shared.masks import visible
from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv
from tests.attentions.upstream import NEAR, flash_linear_attention, tokens_first

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG = 90


def build(pattern, **options):
    torch.manual_seed(0)
    return module("dsa", pattern, **({"topk": 12} | options))


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


def index(attention, context):
    """(B, Lq, Lk) by hand, from the parameters."""
    heads, dim = attention.heads, attention.index_k.out_features
    x, y = context.query_input, context.key_input
    queries = (x @ attention.index_q.weight.T).unflatten(-1, (heads, dim))
    keys, weights = y @ attention.index_k.weight.T, x @ attention.index_w.weight.T
    products = torch.einsum("bthe,bse->btsh", queries, keys) / math.sqrt(dim)
    return (products.relu() * weights[:, :, None]).sum(-1)


def first_best(scores, count):
    """Many scores are zero: of equal ones the first."""
    return scores.sort(descending=True, stable=True).indices[:count]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_many_keys_as_there_are_is_softmax(pattern, masked):
    q, k, v, context = tokens(pattern, masked)
    valid = context.query_mask[:, None, :, None] if masked else 1
    attention = build(pattern, topk=LONG)
    want = module("softmax", pattern)(q, k, v, context)
    assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12
    assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern):
    attention = build(pattern)
    for masked in (False, True):
        q, k, v, context = tokens(pattern, masked)
        (g,) = draw(q.shape, seed=3)
        valid = context.query_mask[:, None, :, None] if masked else 1
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


def test_a_query_reads_the_keys_with_the_largest_index():
    q, k, v, context = tokens("CS")
    attention = build("CS", topk=5)
    found, scores = attention(q, k, v, context), index(attention, context)
    for batch, row in ((0, 3), (0, 60), (1, 89)):
        best = first_best(scores[batch, row, : row + 1], 5)
        weights = (q[batch, :, row, None] @ k[batch][:, best].mT * 5**-0.5).softmax(-1)
        want = (weights @ v[batch][:, best])[:, 0]
        assert error(found[batch, :, row], want) <= 1e-12


def test_of_equal_keys_the_first_are_read():
    q, k, v, context = tokens("NC")
    attention = build("NC", topk=5)
    attention.index_w.weight.data.zero_()
    want = module("softmax", "NC")(q, k[:, :, :5], v[:, :, :5])
    assert error(attention(q, k, v, context), want) <= 1e-12


@pytest.mark.parametrize("topk", [4, 12, LONG])
def test_agrees_with_flash_linear_attention(topk):
    naive = flash_linear_attention("ops/dsa/naive.py").naive_dsa
    q, k, v, context = tokens("CS")
    # With many index heads none of the scores is the zero that theirs takes in any order.
    attention = build("CS", topk=topk, index_heads=16)
    (queries, weights), keys = (
        attention._index_queries(q, context),
        attention._index_keys(k, context),
    )
    inputs = tokens_first(q, k, v, queries, weights.mT.transpose(1, 2))
    theirs = naive(*inputs[:4], keys, weights.mT, topk=topk)
    assert error(attention(q, k, v, context), theirs.transpose(1, 2).double()) <= NEAR


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_loss_is_the_divergence_from_the_mean_of_the_heads(pattern, masked):
    q, k, v, context = tokens(pattern, masked)
    attention = build(pattern, index_loss=0.5).train()
    attention(q, k, v, context)
    mask = visible(attention.pattern, q.shape[2], LONG, context)
    sees = torch.ones(2, q.shape[2], LONG, dtype=torch.bool)
    sees = sees if mask is None else sees & (mask[:, 0] if mask.ndim == 4 else mask)
    scores, total, count = index(attention, context), 0.0, 0
    for batch in range(2):
        for row in range(q.shape[2]):
            seen = sees[batch, row].nonzero()[:, 0]
            if not len(seen) or (masked and not context.query_mask[batch, row]):
                continue
            own = scores[batch, row, seen]
            best = first_best(own, 12)
            heads = (k[batch][:, seen[best]] @ q[batch, :, row, :, None])[..., 0] * 5**-0.5
            target = heads.softmax(-1).mean(0)
            total = total + (target * (target.log() - own[best].log_softmax(-1))).sum()
            count += 1
    assert error(attention.auxiliary_loss(), 0.5 * total / count) <= 1e-12


def test_the_loss_teaches_the_indexer_and_nothing_else():
    q, k, v, context = tokens("CS")
    attention = build("CS").train()
    leaves = [x.requires_grad_() for x in (q, k, v, context.query_input)]
    out = attention(q, k, v, context)
    outs = torch.autograd.grad(
        out.sum(), [*attention.parameters(), leaves[3]], retain_graph=True, allow_unused=True
    )
    assert all(g is None or not g.any() for g in outs)
    loss = attention.auxiliary_loss()
    learned = torch.autograd.grad(loss, list(attention.parameters()), retain_graph=True)
    assert all(g.abs().max() > 0 for g in learned)
    given = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert all(g is None or not g.any() for g in given)
    attention.eval()(q, k, v, context)
    assert attention.auxiliary_loss() is None


def test_the_indexer_learns_where_the_heads_look():
    q, k, v, context = tokens("NC")
    context.query_input, context.key_input = (x.transpose(1, 2).flatten(2) for x in (q, k))
    attention = build("NC", topk=30, index_heads=8).train()
    optimizer = torch.optim.Adam(attention.parameters(), 0.03)
    losses = []
    for _ in range(60):
        attention(q, k, v, context)
        losses.append(attention.auxiliary_loss())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_what_is_later(pattern):
    q, k, v, context = tokens(pattern)
    attention = build(pattern)
    whole = attention(q, k, v, context)
    for t in (1, 11, 12, 13, 36):
        end = t if pattern == "CS" else LONG
        first = AttentionContext(
            query_input=context.query_input[:, :t], key_input=context.key_input[:, :end]
        )
        cut = attention(q[:, :, :t], k[:, :, :end], v[:, :, :end], first)
        assert error(cut, whole[:, :, :t]) <= 1e-12


def test_what_it_needs_and_what_it_reads():
    q, k, v, context = tokens("CS")
    attention = build("CS")
    with pytest.raises(ValueError, match="AttentionContext"):
        attention(q, k, v)
    pairs = sum(min(t + 1, 12) for t in range(LONG)) / (LONG * (LONG + 1) / 2)
    want = torch.full((2, 3), pairs, dtype=torch.float64)
    assert error(attention.density(q, k), want) <= 1e-12
    state = attention.prefill(k, v, context)
    assert sum(x[0].numel() for x in state.tensors.values()) == attention.state_size(LONG)
