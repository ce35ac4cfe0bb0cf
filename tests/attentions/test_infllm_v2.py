"""InfLLM-V2: the blocks that a query reads, and where that is softmax."""

import pytest
import torch

from cab import AttentionContext
from tests.attentions.cases import draw, error, gradients, module, qkv

PATTERNS = ["NS", "CS", "NC", "CC"]
LONG = 90
SMALL = {"block": 8, "topk": 2, "first": 1, "local": 2, "run": 8, "stride": 4}


def build(pattern, **options):
    return module("infllm-v2", pattern, **(SMALL | options))


def inputs(pattern):
    return qkv(37 if pattern.endswith("C") else LONG, LONG)


def holes(pattern):
    rows = torch.rand(2, LONG, generator=torch.Generator().manual_seed(1)) > 0.3
    rows[1, :17] = False
    rows[0, -3:] = False
    own = rows[:, 5:42] if pattern.endswith("C") else rows
    return AttentionContext(query_mask=own, key_mask=rows)


@pytest.mark.parametrize("options", [{"topk": 12}, {"local": 12}, {"first": 12}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_many_blocks_as_there_are_is_softmax(pattern, options):
    q, k, v = inputs(pattern)
    attention = build(pattern, **options)
    for context in (None, holes(pattern)):
        want = module("softmax", pattern)(q, k, v, context)
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        assert error(attention(q, k, v, context) * valid, want * valid) <= 1e-12
        assert error(attention.density(q, k, context), torch.ones(2, 3).double()) <= 1e-12


@pytest.mark.parametrize("options", [{}, {"run": 12, "first": 0}, {"topk": 0}], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_equals_the_reference_with_gradients(pattern, options):
    q, k, v = inputs(pattern)
    (g,) = draw(q.shape, seed=3)
    attention = build(pattern, **options)
    for context in (None, holes(pattern)):
        valid = 1 if context is None else context.query_mask[:, None, :, None]
        out, found = gradients(lambda *x, c=context: attention(*x, c), (q, k, v), g * valid)
        want_out, want = gradients(
            lambda *x, c=context: attention.reference(*x, c), (q, k, v), g * valid
        )
        assert error(out * valid, want_out * valid) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_query_by_hand(pattern):
    q, k, v = inputs(pattern)
    found = build(pattern)(q, k, v)
    batch, head, row = 1, 2, 35
    place = LONG - 1 if pattern.endswith("C") else row
    own, last = place // 8, place if pattern == "CS" else LONG - 1
    runs = {c: range(4 * c, 4 * c + 8) for c in range(21) if 4 * c + 7 <= last}
    score = {c: q[batch, head, row] @ k[batch, head, list(run)].mean(0)
             for c, run in runs.items()}  # fmt: skip
    near = {0, own - 1, own} | ({own + 1} if pattern == "NS" else set())
    # Of a block of two strides: the run that begins in the one before it, and in its own two.
    # The last two keys are in no run.
    best = {b: max((score[c] for c in (2 * b - 1, 2 * b, 2 * b + 1) if c in score), default=-1e9)
            for b in range(last // 8 + 1) if b not in near}  # fmt: skip
    chosen = near | set(sorted(best, key=lambda b: -best[b])[:2])
    seen = [j for j in range(last + 1) if j // 8 in chosen]
    weights = (k[batch, head, seen] @ q[batch, head, row] * 5**-0.5).softmax(-1)
    assert error(found[batch, head, row], weights @ v[batch, head, seen]) <= 1e-12


def test_first_and_near_blocks_alone_are_a_window_with_sinks():
    q, k, v = inputs("CS")
    blocks = build("CS", topk=0, first=1, local=2)(q, k, v)
    for row in (7, 8, 30, 31, 89):
        # A window that begins where the block before the query's own does.
        window = row % 8 + 8 + 1
        want = module("swa-sink", "CS", sinks=8, window=window)(q, k, v)[:, :, row]
        assert error(blocks[:, :, row], want) <= 1e-12


def test_it_has_no_parameters():
    assert not list(build("CS").parameters())


@pytest.mark.parametrize("pattern", ["CS", "CC"])
def test_no_output_hangs_on_what_is_later(pattern):
    q, k, v = inputs(pattern)
    attention = build(pattern)
    whole = attention(q, k, v)
    for t in (1, 7, 8, 9, 17, 36):
        cut = [x[:, :, :t] if pattern == "CS" else x for x in (k, v)]
        assert error(attention(q[:, :, :t], *cut), whole[:, :, :t]) <= 1e-12


def test_density():
    q, k, _ = inputs("CS")
    pairs = sum(min(t + 1, 4 * 8 + t % 8 + 1) for t in range(LONG))
    want = torch.full((2, 3), pairs / (LONG * (LONG + 1) / 2), dtype=torch.float64)
    assert error(build("CS").density(q, k), want) <= 1e-12
