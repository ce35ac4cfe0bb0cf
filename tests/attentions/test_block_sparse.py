"""Softmax over lists of key blocks, against the mask written out."""

import pytest
import torch

from attentions.shared import block_tiles
from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
from tests.attentions.cases import draw, error, gradients, module, qkv

BATCH, HEADS, DIM = 2, 3, 5


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dense(q, k, v, sees, bias=None):
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias[:, None, None]
    scores = scores.masked_fill(~sees, float("-inf"))
    hidden = (scores == float("-inf")).all(-1, keepdim=True)
    return scores.masked_fill(hidden, 0.0).softmax(-1).masked_fill(hidden, 0.0) @ v


def by_token(kept, block, unit, length_q, columns, lead=0):
    """(.., Lq, N) of (.., blocks, units)."""
    kept = kept.repeat_interleave(block, -2).repeat_interleave(unit, -1)
    return kept[..., lead : lead + length_q, :columns]


def drawn(kind, blocks, units):
    """(B or 1, H or 1, blocks, units): what each block of queries reads."""
    batch, heads = {"shared": (1, 1), "by head": (1, HEADS), "by pair": (BATCH, HEADS)}[kind]
    kept = random(batch, heads, blocks, units, seed=4) < 0.5
    kept[..., 0] |= ~kept.any(-1)
    return kept


@pytest.mark.parametrize("room", [200, 1 << 17])
@pytest.mark.parametrize("kind", ["shared", "by head", "by pair"])
@pytest.mark.parametrize(("block", "unit", "lead"), [(4, 8, 0), (8, 4, 3), (1, 3, 0), (5, 1, 4)])
def test_equals_the_mask_with_gradients(monkeypatch, kind, block, unit, lead, room):
    monkeypatch.setitem(block_tiles._NUMBERS, "cpu", room)
    length_q, columns = 29, 37
    q, k, v = qkv(length_q, columns)
    (g,) = draw(q.shape, seed=3)
    kept = drawn(kind, -(-(lead + length_q) // block), -(-columns // unit))
    lists = BlockLists(lists_of(kept), block, unit)
    sees = by_token(kept, block, unit, length_q, columns, lead)
    bias = random(BATCH, columns, seed=5).double()
    bias[0, 7:20] = float("-inf")
    bias[1] = float("-inf")
    for own in (None, bias[:1], bias):

        def ours(q, k, v, own=own):
            return block_sparse_attention(q, k, v, lists, bias=own, lead=lead)

        def plainly(q, k, v, own=own):
            return dense(q, k, v, sees, own)

        out, found = gradients(ours, (q, k, v), g)
        want_out, want = gradients(plainly, (q, k, v), g)
        assert error(out, want_out) <= 1e-12
        for x, y in zip(found, want, strict=True):
            assert error(x, y) <= 1e-12
        seen = sees if own is None else sees & (own > float("-inf"))[:, None, None]
        count = columns_read(lists, q.shape, columns, bias=own, lead=lead)
        assert torch.equal(count, seen.expand(BATCH, HEADS, -1, -1).sum((-1, -2)).double())


def causal(i, j):
    return j <= i


@pytest.mark.parametrize("length_q", [40, 37, 5])
def test_the_last_units_are_masked_query_by_query(length_q):
    block, unit, length = 8, 4, 40
    q, k, v = qkv(length_q, length)
    (g,) = draw(q.shape, seed=3)
    first = (length - length_q) // block
    kept = drawn("by pair", length // block, length // unit)[:, :, first:]
    units, blocks = torch.arange(length // unit), torch.arange(first, length // block)[:, None]
    # All units before the block's own are drawn, its own are read by everyone.
    kept = kept & (units < blocks * 2) | (units // 2 == blocks)
    lists = BlockLists(lists_of(kept), block, unit, partial=2, sees=causal, first=first * block)
    lead = length - length_q - first * block
    sees = by_token(kept, block, unit, length_q, length, lead)
    sees = sees & torch.ones(length, length, dtype=torch.bool).tril()[-length_q:]

    def ours(q, k, v):
        return block_sparse_attention(q, k, v, lists, lead=lead)

    out, found = gradients(ours, (q, k, v), g)
    want_out, want = gradients(lambda q, k, v: dense(q, k, v, sees), (q, k, v), g)
    assert error(out, want_out) <= 1e-12
    for x, y in zip(found, want, strict=True):
        assert error(x, y) <= 1e-12
    mask = random(BATCH, length_q, seed=7) < 0.6
    count = columns_read(lists, q.shape, length, query_mask=mask, lead=lead)
    assert torch.equal(count, (sees & mask[:, None, :, None]).sum((-1, -2)).double())


def test_everything_on_every_list_is_softmax():
    q, k, v = qkv(29, 37)
    lists = BlockLists(lists_of(torch.ones(1, 1, 4, 5, dtype=torch.bool)), 8, 8)
    want = module("softmax", "NC")(q, k, v)
    assert error(block_sparse_attention(q, k, v, lists), want) <= 1e-12


def test_an_empty_list_gives_zeros():
    q, k, v = qkv(24, 24)
    kept = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    kept[..., 1, :] = False
    for own in (kept, torch.zeros_like(kept)):
        out = block_sparse_attention(q, k, v, BlockLists(lists_of(own), 8, 8))
        assert (out[:, :, 8:16] == 0).all()
        assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_computes_in_float32_at_least_and_returns_the_dtype_of_the_values(dtype):
    q, k, v = (x.to(dtype) for x in qkv(32, 32))
    lists = BlockLists(lists_of(torch.ones(1, 1, 4, 4, dtype=torch.bool)), 8, 8)
    want = module("softmax", "NC")(*(x.double() for x in (q, k, v)))
    out = block_sparse_attention(q, k, v, lists)
    assert out.dtype == dtype
    assert error(out, want) <= 4 * torch.finfo(dtype).eps


def test_strided_inputs_are_read_where_they_are():
    tokens = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in qkv(32, 32)]
    lists = BlockLists(lists_of(torch.eye(4, dtype=torch.bool)[None, None]), 8, 8)
    want = block_sparse_attention(*(x.contiguous() for x in tokens), lists)
    assert torch.equal(block_sparse_attention(*tokens, lists), want)


def test_blocks_that_the_queries_do_not_fill_are_refused():
    q, k, v = qkv(24, 24)
    lists = BlockLists(lists_of(torch.ones(1, 1, 4, 3, dtype=torch.bool)), 8, 8)
    with pytest.raises(ValueError, match="24 queries do not fill 4 blocks of 8"):
        block_sparse_attention(q, k, v, lists)


def test_lists_are_ascending_with_the_absent_first():
    kept = torch.tensor([[True, False, True], [False, True, False]])
    assert lists_of(kept[None, None])[0, 0].tolist() == [[0, 2], [-1, 1]]
