"""Mixture of block attention: each query chooses blocks of keys by their mean (MoBA).

Lu et al. 2025, arXiv 2502.13189. Keys are cut into blocks of B, and a query
ranks those that ended before its own block begins by

    s_ib = q_i·mean of k over block b

It reads its own block, as far as the pattern shows it, and the k - 1 others with the largest s_ib:

    o_i = softmax_j(q_i·k_j / sqrt(D)) v_j   over the keys of all blocks that it reads

in one softmax. Each query and head chooses by itself, so nothing later takes part in the choice,
through which no gradient goes. Of equal scores the first block is taken. There are no parameters.

Blocks are cut at places, those of the context or else in the sequence; a masked key is in no mean,
and a block without a valid key is not there. The defaults suit sequences of hundreds to thousands
of tokens; the authors have blocks of 512, of which 3 are read, at 8,192 tokens (``paper``), and of
4,096, with 12, at 1,048,576.

What the authors did not report, with the same formula: noncausal self attention chooses among all
other blocks, behind its own too; cross attention has no own block, and chooses the k best of the
source.

The runs of keys that all queries read are sorted by where they begin, so that queries that read the
same block do so in one product, as the authors' kernel does (algorithm 1); see
`attentions.shared.key_ranges`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.block_choice import best_blocks, block_means
from attentions.shared.cache import KeyValueCache
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.key_ranges import keys_in_runs, union_attention
from attentions.shared.masks import visible
from attentions.shared.places import query_places
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


@register_attention(
    AttentionInfo(
        id="moba",
        family=Family.SPARSE,
        title="Mixture of block attention (MoBA)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over its own block and the k - 1 past "
        "blocks b with the largest q_i·mean_b(k)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D / B + L k B D",
        memory="L k D",
        paper="Lu et al., MoBA: Mixture of Block Attention for Long-Context LLMs",
        year=2025,
        url="https://arxiv.org/abs/2502.13189",
        options=(
            Option("block", 32, "B: keys in a block", positive=True),
            Option("topk", 4, "k: blocks that a query reads, its own among them", positive=True),
        ),
        presets={"paper": {"block": 512, "topk": 3}},
    )
)
class MixtureOfBlockAttention(PartialReads, KeyValueCache):
    """Softmax over a query's own block of keys and the best ones by their mean."""

    def __init__(self, spec: AttentionSpec, block: int = 32, topk: int = 4) -> None:
        super().__init__(spec)
        self.block, self.topk = block, topk
        self.causal = spec.pattern is Pattern.CAUSAL_SELF

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        mask = None if context is None else context.key_mask
        first, last = self._runs(q, k, mask)
        return union_attention(q, k, v, first, last, mask).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """A score of every query and block, a sort of them, and dense softmax under the mask."""
        length_q, length_k = q.shape[2], k.shape[2]
        valid = torch.ones(q.shape[0], length_k, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        own = torch.arange(length_k - length_q, length_k, device=q.device) // self.block
        scores = []
        starts = range(0, length_k, self.block)
        for b, start in enumerate(starts):
            inside = valid[:, None, start : start + self.block, None]
            keys = k[:, :, start : start + self.block].detach() * inside
            score = (q.detach() * (keys.sum(2, True) / inside.sum(2, True).clamp(min=1))).sum(-1)
            choice = inside.any(2).expand_as(score)
            if not self.pattern.cross:
                choice = choice & (own > b if self.causal else own != b)
            scores.append(score.masked_fill(~choice, float("-inf")))
        ranked = torch.stack(scores, -1).sort(dim=-1, descending=True, stable=True)
        chosen = ranked.indices.argsort(-1) < self.topk - (not self.pattern.cross)
        chosen = chosen & (torch.stack(scores, -1) > float("-inf"))
        if not self.pattern.cross:
            chosen = chosen | (own[:, None] == torch.arange(len(starts), device=q.device))
        sees = chosen.repeat_interleave(self.block, -1)[..., :length_k]
        mask = visible(self.pattern, length_q, length_k, context, q.device)
        return exact_softmax_attention(q, k, v, sees if mask is None else sees & mask)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keep the keys, values and key mask: any block may be chosen."""
        mask = None if context is None else context.key_mask
        return super().prefill(k, v, AttentionContext(key_mask=mask))

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        first, last = self._runs(q, k, context.key_mask)
        return keys_in_runs(first, last, k.shape[2], context, q)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair of a query and a key that it reads, and the scores of the
        blocks that it chooses from.
        """
        rows, size = shape.batch * shape.heads, self.block
        blocks, pairs, scores = -(-shape.length_k // size), 0.0, 0.0
        if not self.causal:
            pairs = float(shape.length_q * min(shape.length_k, self.topk * size))
            scores = float(shape.length_q * blocks)
        else:
            for place in range(shape.length_k - shape.length_q, shape.length_k):
                past = place // size
                pairs += min(past, self.topk - 1) * size + place % size + 1
                scores += past
        width = shape.head_dim + shape.value_dim
        return 2.0 * rows * (pairs * width + scores * shape.head_dim)

    @torch.no_grad()
    def _runs(self, q: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, H, Lq, at most k) the blocks that each query reads, its own last."""
        length = k.shape[2]
        place = query_places(q.shape[2], length, False, None, q.device)
        own = place // self.block
        means, filled = block_means(k, mask, self.block)
        count = torch.arange(means.shape[2], device=q.device)

        def choice(rows: slice) -> Tensor:
            here = own[0, rows, None]
            free = filled[:, None, None]
            if not self.pattern.cross:
                free = free & (count < here if self.causal else count != here)
            return free

        blocks = best_blocks(q, means, choice, self.topk - (not self.pattern.cross))
        first = blocks.clamp(min=0) * self.block
        last = torch.where(blocks >= 0, (first + self.block).clamp(max=length), 0)
        if self.pattern.cross:
            return first, last
        begin = (own * self.block)[:, None, :, None].expand(*q.shape[:3], 1)
        end = place + 1 if self.causal else ((own + 1) * self.block).clamp(max=length)
        end = end[:, None, :, None].expand(*q.shape[:3], 1)
        return torch.cat([first, begin], -1), torch.cat([last, end], -1)
