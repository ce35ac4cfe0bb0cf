"""PowerAttention: a window of blocks, and one block at each power of two behind it.

Chen, Xu et al. 2025, arXiv 2503.03588, algorithm 1. Tokens are in blocks of b; with I and J the
blocks of query i and key j, and d = I - J:

    i sees j   if   j <= i   and   d < w,  or d a power of two,  or J < s
    o_i = softmax over these of q_i·k_j / sqrt(D), times v_j

w is the window and s the number of sink blocks. What a query can reach over some layers grows
exponentially with their number, as a distance of n blocks is a sum of at most log2 n powers.

Noncausal self attention, which the paper does not have, reads |d| for d: adapted.

Blocks are of positions: those of the context, or else places in the sequence, masked tokens
counted. Nothing hangs on the length: the paper's b = 256 and w = 5 at 32k tokens are the preset
``paper``.

Decoding keeps every key, as any block is read again at some power of two, and reads only those
that the token sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists
from attentions.shared.cache import KeyValueCache
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import hidden_as_bias, not_later, visible
from attentions.shared.positions import at_positions, prompt_at_positions
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    AttentionSpec,
    DecodeState,
    Family,
    Grade,
    Option,
    Pattern,
    register_attention,
)

_NO_CROSS = "distances between blocks need positions that queries and keys share"


@register_attention(
    AttentionInfo(
        id="power-attention",
        family=Family.WINDOWED,
        title="PowerAttention (blocks at powers of two)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over blocks J of j with I - J < w, I - J a "
        "power of two, or J < s",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={Pattern.NONCAUSAL_CROSS: _NO_CROSS, Pattern.CAUSAL_CROSS: _NO_CROSS},
        time="L b (w + ln L) D",
        memory="L D",
        paper="Chen et al., PowerAttention: Exponentially Scaling of Receptive Fields for "
        "Effective Sparse Attention",
        year=2025,
        url="https://arxiv.org/abs/2503.03588",
        options=(
            Option("block", 32, "b: tokens in a block", positive=True),
            Option("window", 5, "w: blocks in the window, the query's own counted", positive=True),
            Option("sinks", 1, "s: blocks at the beginning that all queries see", least=0),
        ),
        presets={"paper": {"block": 256, "window": 5, "sinks": 1}},
    )
)
class PowerAttention(PartialReads, KeyValueCache):
    """Softmax over blocks near the query, at powers of two from it, and at the beginning."""

    def __init__(
        self, spec: AttentionSpec, block: int = 32, window: int = 5, sinks: int = 1
    ) -> None:
        super().__init__(spec)
        self.block, self.window, self.sinks = block, window, sinks
        self.causal = spec.pattern is Pattern.CAUSAL_SELF

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        mask = None if context is None else context.key_mask
        lists, lead = self._lists(q, k)
        return block_sparse_attention(q, k, v, lists, bias=hidden_as_bias(mask, q), lead=lead)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under the mask."""
        length_q, length_k = q.shape[-2], k.shape[-2]
        i = torch.arange(length_q, device=q.device)[:, None] + length_k - length_q
        j = torch.arange(length_k, device=q.device)[None, :]
        distance = (i // self.block - j // self.block).abs()
        power = (distance > 0) & (distance & (distance - 1) == 0)
        sees = (distance < self.window) | power | (j < self.block * self.sinks)
        mask = visible(self.pattern, length_q, length_k, context, q.device)
        return exact_softmax_attention(q, k, v, sees if mask is None else sees & mask)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keep the keys, values and key mask of the prompt."""
        mask = None if context is None else context.key_mask
        return super().prefill(k, v, AttentionContext(key_mask=mask))

    def attend_once(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Softmax of the last token's query, (B, H, 1, D), over the blocks that it sees."""
        lists, _ = self._lists(q, k)
        units = lists.units[0, 0, 0]
        inner = torch.arange(self.block, device=k.device)
        places = (units[units >= 0, None] * self.block + inner).flatten()
        places = places[places < k.shape[-2]]
        mask = None if context is None else context.key_mask
        seen = None if mask is None else mask[:, None, None, places]
        return exact_softmax_attention(q, k[:, :, places], v[:, :, places], seen)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        lists, lead = self._lists(q, k)
        bias = hidden_as_bias(context.key_mask, q)
        return columns_read(
            lists, q.shape, k.shape[-2], bias=bias, query_mask=context.query_mask, lead=lead
        )

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair in a block that is read."""
        lists, _ = self._lists(*(torch.empty(1, 1, x, 1) for x in (shape.length_q, shape.length_k)))
        pairs = int((lists.units >= 0).sum()) * self.block**2
        width = shape.head_dim + shape.value_dim
        return 2.0 * shape.batch * shape.heads * pairs * width

    def _lists(self, q: Tensor, k: Tensor) -> tuple[BlockLists, int]:
        """Blocks that each block of queries reads, and the places before the first query."""
        length, lag = k.shape[-2], k.shape[-2] - q.shape[-2]
        blocks, first = -(-length // self.block), lag // self.block
        window = min(self.window, blocks)
        offsets = list(range(window))
        offsets += [1 << p for p in range(blocks.bit_length()) if window <= 1 << p < blocks]
        own = torch.arange(first, blocks, device=k.device)[:, None]
        behind = own - torch.tensor(offsets[::-1], device=k.device, dtype=torch.long)
        # A block of the beginning that is also at a listed distance is read once.
        units = [behind.masked_fill(behind < self.sinks, -1)]
        sinks = torch.arange(min(self.sinks, blocks), device=k.device).expand(len(own), -1)
        if self.causal:
            units.append(sinks.masked_fill(sinks > own, -1))
        else:
            ahead = own + torch.tensor(offsets[1:], device=k.device, dtype=torch.long)
            units += [sinks, ahead.masked_fill((ahead >= blocks) | (ahead < self.sinks), -1)]
        listed = torch.cat(units, dim=-1).sort(-1).values
        listed = listed[:, max(0, listed.shape[1] - int((listed >= 0).sum(-1).max())) :]
        lists = BlockLists(
            listed[None, None],
            self.block,
            self.block,
            partial=int(self.causal),
            sees=not_later if self.causal else None,
            first=first * self.block,
        )
        return lists, lag - first * self.block
