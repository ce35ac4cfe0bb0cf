"""FlexAttention, not compiled, and the block-sparse engine compute the same of the same blocks."""

import warnings

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from benchmarks.attentions.flex_blocks import BLOCK, DIM, HEADS, block_sparse, blocks


def test_both_sides_compute_the_same():
    generator = torch.Generator().manual_seed(0)
    length = 3 * BLOCK
    kept = blocks(length, 0.3, generator)
    assert not kept.all()
    q, k, v = torch.randn(3, 1, HEADS, length, DIM, generator=generator)
    mask = create_block_mask(
        lambda b, h, i, j: kept[h, i // BLOCK, j // BLOCK],
        None, HEADS, length, length, device="cpu", BLOCK_SIZE=BLOCK,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        want = flex_attention(q, k, v, block_mask=mask)
    torch.testing.assert_close(block_sparse(q, k, v, kept), want, rtol=1e-4, atol=1e-5)
