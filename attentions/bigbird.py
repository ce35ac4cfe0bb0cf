"""BigBird: blocks of tokens read those beside them, the ends, and a few at random.

Zaheer et al. 2020, arXiv 2007.14062. Tokens are in blocks of b, and a block of queries
reads

    window   the blocks up to ``neighbours`` away on each side, and itself
    global   the ``ends`` first and last blocks, which in turn read all
    random   ``random`` others, drawn once for each layer and head

    o_i = softmax_j(q_i·k_j / sqrt(D)) v_j   over the keys of all of them

in one softmax. With random blocks any two tokens are few steps apart, with global ones two, on
which the paper's proofs rest that nothing is lost against full attention. Global tokens are those
of the sequence (the paper's ITC); its other form (ETC) puts new tokens before it.

The draw is a fixed function of layer, head and both blocks, so that it is the same for sequences of
all lengths: of the blocks that are not read in any case, those with the largest numbers are. Blocks
are cut at places, those of the context or else in the sequence. A block without a valid key is not
there, and the ends are the first and last that are.

The paper has it for encoders alone; its decoders attend in full. The defaults suit sequences of
hundreds to thousands of tokens; the paper's blocks are of 64 tokens (``paper``), for 4,096.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
from attentions.shared.compressed_keys import filled_blocks
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import hidden_as_bias
from attentions.shared.positions import at_positions
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
"""Odd numbers that spread bits, of xxHash and the golden ratio"""


@register_attention(
    AttentionInfo(
        id="bigbird",
        family=Family.SPARSE,
        title="BigBird (window, global and random blocks)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over the blocks beside that of i, the "
        "first and the last one, and a few at random; over all in the first and the last one",
        patterns={Pattern.NONCAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.CAUSAL_SELF: "blocks that read all would read what comes later; the paper's "
            "decoders attend in full",
            Pattern.NONCAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to put blocks beside each other",
            Pattern.CAUSAL_CROSS: "queries and keys of two sequences have no common positions "
            "to put blocks beside each other",
        },
        time="L b r D",
        memory="L D + L^2 / b^2",
        paper="Zaheer et al., Big Bird: Transformers for Longer Sequences",
        year=2020,
        url="https://arxiv.org/abs/2007.14062",
        options=(
            Option("block", 16, "b: tokens in a block", positive=True),
            Option("neighbours", 1, "blocks on each side that are read", least=0),
            Option("ends", 1, "first blocks, and last ones, that read all and that all read",
                   least=0),
            Option("random", 3, "other blocks that are read", least=0),
        ),
        presets={"paper": {"block": 64}},
    )
)  # fmt: skip
class BigBird(PartialReads):
    """Softmax over neighbouring, global and random blocks of keys."""

    def __init__(
        self,
        spec: AttentionSpec,
        block: int = 16,
        neighbours: int = 1,
        ends: int = 1,
        random: int = 3,
    ) -> None:
        super().__init__(spec)
        self.block, self.neighbours, self.ends, self.random = block, neighbours, ends, random

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        mask = None if context is None else context.key_mask
        lists = self._lists(q, k, mask)
        return block_sparse_attention(q, k, v, lists, bias=hidden_as_bias(mask, q))

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Block by block of each row and head, and dense softmax under the mask."""
        self._check_lengths(q, k)
        length = k.shape[2]
        valid = torch.ones(q.shape[0], length, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        starts = range(0, length, self.block)
        drawn = self._drawn(len(starts), q.device)
        sees = torch.zeros(q.shape[0], q.shape[1], length, length, dtype=torch.bool).to(q.device)
        for row in range(q.shape[0]):
            there = [b for b, s in enumerate(starts) if valid[row, s : s + self.block].any()]
            shared = {*there[: self.ends], *there[max(0, len(there) - self.ends) :]}
            for head in range(q.shape[1]):
                for i, s in enumerate(starts):
                    read = {b for b in there if abs(b - i) <= self.neighbours} | shared
                    others = [b for b in there if b not in read]
                    others.sort(key=lambda b: (-int(drawn[head, i, b]), b))
                    read |= set(others[: self.random])
                    for b in there if i in shared else read:
                        own = slice(starts[b], starts[b] + self.block)
                        sees[row, head, s : s + self.block, own] = True
        return exact_softmax_attention(q, k, v, sees & valid[:, None, None])

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        lists, bias = self._lists(q, k, context.key_mask), hidden_as_bias(context.key_mask, q)
        return columns_read(lists, q.shape, k.shape[2], bias=bias, query_mask=context.query_mask)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair of a query and a key that it reads."""
        blocks = -(-shape.length_k // self.block)
        shared = min(blocks, 2 * self.ends)
        most = min(blocks, 2 * self.neighbours + 1 + shared + self.random)
        pairs = (shared * blocks + (blocks - shared) * most) / blocks**2
        pairs = pairs * shape.length_q * shape.length_k
        return 2.0 * shape.batch * shape.heads * pairs * (shape.head_dim + shape.value_dim)

    def _check_lengths(self, q: Tensor, k: Tensor) -> None:
        if q.shape[2] != k.shape[2]:
            raise NotImplementedError("blocks of queries are those of the keys: Lq must be Lk")

    def _drawn(self, blocks: int, device: torch.device) -> Tensor:
        """(H, blocks, blocks) numbers by which others are drawn, the same for every length."""
        head = torch.arange(self.spec.heads, device=device)[:, None, None]
        number = torch.arange(blocks, device=device)
        parts: list[int | Tensor] = [self.spec.layer_index, head, number[:, None], number]
        x = head * 0
        for part, factor in zip(parts, _FACTORS, strict=True):
            # The bits of a product below 2^31, mixed: what comes next meets all of them.
            x = ((x ^ (part + 1)) * factor) & 0x7FFFFFFF
            x = x ^ (x >> 15)
        return (x * _FACTORS[0] & 0x7FFFFFFF) ^ (x >> 13)

    @torch.no_grad()
    def _lists(self, q: Tensor, k: Tensor, mask: Tensor | None) -> BlockLists:
        """The blocks that each block reads."""
        self._check_lengths(q, k)
        filled = filled_blocks(mask, k.shape[2], self.block, k.device)
        count = filled.shape[-1]
        number = torch.arange(count, device=k.device)
        before = filled.cumsum(-1)
        behind = before[:, -1:] - before + filled
        shared = filled & ((before <= self.ends) | (behind <= self.ends))
        near = (number[:, None] - number).abs() <= self.neighbours
        read = (near | shared[:, None] | shared[..., None]) & filled[:, None]
        free = (filled[:, None] & ~read)[:, None]
        drawn = self._drawn(count, k.device).masked_fill(~free, -1)
        order = drawn.sort(dim=-1, descending=True, stable=True).indices[..., : self.random]
        others = torch.zeros_like(drawn, dtype=torch.bool).scatter(-1, order, True) & free
        return BlockLists(lists_of(read[:, None] | others), self.block, self.block)
