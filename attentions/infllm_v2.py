"""InfLLM-V2: the first blocks, those near, and the best ones by pooled keys; no new weights.

Zhao et al. 2025, arXiv 2509.24663, with the authors' kernels. Keys are in blocks of B tokens, and
pooled over runs of l tokens, one from every d on. A query ranks blocks by the best of the runs that
overlap them,

    p_ic = softmax_c(q_i·mean of k over run c / sqrt(D)),   P_ij = max over c that overlap j of p_ic

of the runs that ended before it or at it, and reads the ``first`` blocks, the ``local`` ones up to
its own, and the k best of the others:

    o_i = softmax_j(q_i·k_j / sqrt(D)) v_j   over the keys of all of them

in one softmax, where native sparse attention (`nsa`) has three with gates and keys of their own: a
model may learn under dense attention and go on under this one. A block that no run overlaps has
P = 0, and of equal blocks the first is taken. Each query chooses by itself, and no gradient goes
through the choice.

What differs from the paper: there several queries share a key and, by the sum of their p, a choice;
here heads have keys of their own, and each chooses for itself. There short inputs are dense; here a
query that stands among the first (first + local + k) B tokens reads all that it sees, and no other
switch hangs on the length. In noncausal self attention, which the authors do not have, blocks near
are those up to local - 1 away on both sides, and all runs are read; in cross attention queries
stand at the last key of the source, as if they were the next tokens.

Blocks and runs are cut at places, those of the context or else in the sequence. A masked key is in
no mean; a run or a block without valid keys is not there, nor is a run that the last valid key does
not fill, and the first block is the first that is there. The defaults suit sequences of hundreds to
thousands of tokens; the authors' kernels are measured with B = 64, l = 32, d = 16 and 64 blocks in
all, at 32,768 tokens and more.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.block_choice import ranked, rows_at_a_time
from attentions.shared.cache import KeyValueCache
from attentions.shared.compressed_keys import Runs, filled_blocks
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax, exact_softmax_attention
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
        id="infllm-v2",
        family=Family.SPARSE,
        title="InfLLM-V2: blocks by pooled keys, first and near ones",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over the first blocks, the last ones up to "
        "i, and the k others with the largest max_c q_i·mean_c(k)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 D / d + L k B D",
        memory="L k D",
        paper="Zhao et al., InfLLM-V2: Dense-Sparse Switchable Attention for Seamless "
        "Short-to-Long Adaptation",
        year=2025,
        url="https://arxiv.org/abs/2509.24663",
        options=(
            Option("block", 32, "B: keys in a block", positive=True),
            Option("topk", 3, "k: blocks that are chosen beside the first and the near ones",
                   least=0),
            Option("first", 1, "blocks at the beginning that all read", least=0),
            Option("local", 2, "blocks up to the query's own, it among them", positive=True),
            Option("run", 16, "l: tokens that a pooled key is the mean of", positive=True),
            Option("stride", 8, "d: tokens from one run to the next", positive=True),
        ),
    )
)  # fmt: skip
class InfLLMV2(PartialReads, KeyValueCache):
    """Softmax over the first blocks of keys, those near, and the best ones by pooled keys."""

    def __init__(
        self,
        spec: AttentionSpec,
        block: int = 32,
        topk: int = 3,
        first: int = 1,
        local: int = 2,
        run: int = 16,
        stride: int = 8,
    ) -> None:
        super().__init__(spec)
        self.cut, self.topk, self.first, self.local = Runs(run, stride, block), topk, first, local
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        self.ahead = local - 1 if spec.pattern is Pattern.NONCAUSAL_SELF else 0

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        mask = None if context is None else context.key_mask
        begin, end = self._ranges(q, k, mask)
        return union_attention(q, k, v, begin, end, mask).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Weights of all runs, the largest of each block, a sort of blocks, and dense softmax."""
        length, cut = k.shape[2], self.cut
        valid = torch.ones(q.shape[0], length, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        j = torch.arange(length, device=q.device)
        place = torch.arange(length - q.shape[2], length, device=q.device)[None, :, None]
        end = torch.where(valid, j, -1).amax(-1)[:, None, None]
        if self.pattern.cross:
            place = end.expand(-1, q.shape[2], -1)
        ends = cut.ends(length, q.device)
        starts = ends - cut.size + 1
        inside = (j >= starts[:, None]) & (j <= ends[:, None]) & valid[:, None]
        means = (inside.to(k.dtype) @ k.detach().transpose(0, 1)).transpose(0, 1)
        means = means / inside.sum(-1).clamp(min=1)[:, None, :, None]
        sees = inside.any(-1)[:, None] & (ends <= (place if self.causal else end))
        weights = exact_softmax(q.detach(), means, sees[:, None])
        number = torch.arange(cut.blocks(length), device=q.device)
        scores = []
        for b in number.tolist():
            over = (starts < (b + 1) * cut.block) & (ends >= b * cut.block)
            scores.append((weights * over).amax(-1) if len(ends) else weights.sum(-1))
        some = torch.stack([valid[:, s : s + cut.block].any(-1) for s in number * cut.block], -1)
        own, start = place // cut.block, some.int().argmax(-1)[:, None, None]
        kept = (number > own - self.local) & (number <= own + self.ahead)
        kept = kept | (number >= start) & (number < start + self.first)
        free = some[:, None] & ~kept & ((number <= own) | (not self.causal))
        total = torch.stack(scores, -1).masked_fill(~free[:, None], -math.inf)
        rank = total.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
        read = (free[:, None] & (rank < self.topk)) | kept[:, None]
        read = read.repeat_interleave(cut.block, -1)[..., :length]
        mask = visible(self.pattern, q.shape[2], length, context, q.device)
        return exact_softmax_attention(q, k, v, read if mask is None else read & mask)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keep the keys, values and key mask: any block may be chosen."""
        mask = None if context is None else context.key_mask
        return super().prefill(k, v, AttentionContext(key_mask=mask))

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        begin, end = self._ranges(q, k, context.key_mask)
        return keys_in_runs(begin, end, k.shape[2], context, q)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair of a query and a key that it reads, and scores of runs."""
        length, cut, pairs, scores = shape.length_k, self.cut, 0.0, 0
        most = self.topk + self.first + self.local + self.ahead
        for place in range(length - shape.length_q, length):
            seen = place + 1 if self.causal else length
            # The query's own block is read as far as it is seen.
            beyond = cut.block - 1 - place % cut.block if self.causal else 0
            pairs += min(seen, most * cut.block - beyond)
            scores += cut.count(seen)
        width = shape.head_dim + shape.value_dim
        return 2.0 * shape.batch * shape.heads * (pairs * width + scores * shape.head_dim)

    @torch.no_grad()
    def _ranges(self, q: Tensor, k: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, H, Lq, k + 2) the keys that each query reads: chosen blocks, first and near ones."""
        length, size = k.shape[2], self.cut.block
        place = query_places(q.shape[2], length, self.pattern.cross, mask, q.device)[..., None]
        filled = filled_blocks(mask, length, size, q.device)
        start = filled.int().argmax(-1)[:, None, None]
        chosen = self._chosen(q, k, mask, place, filled, start)
        limit = place + 1 if self.causal else torch.full_like(place, length)
        begin = chosen.clamp(min=0) * size
        end = torch.minimum(begin + size, limit[:, None]).masked_fill(chosen < 0, 0)
        initial = torch.minimum((start + self.first) * size, limit)
        own = place // size
        near = torch.maximum((own - self.local + 1).clamp(min=0) * size, initial)
        until = torch.minimum((own + self.ahead + 1) * size, limit)
        kept = ((start * size, initial), (near, until))
        shape = (*q.shape[:3], 1)
        begins = [begin, *(x[:, None].expand(shape) for x, _ in kept)]
        ends = [end, *(x[:, None].expand(shape) for _, x in kept)]
        return torch.cat(begins, -1), torch.cat(ends, -1)

    def _chosen(
        self,
        q: Tensor,
        k: Tensor,
        mask: Tensor | None,
        place: Tensor,
        filled: Tensor,
        start: Tensor,
    ) -> Tensor:
        """(B, H, Lq, at most k) numbers of blocks, -1 where there are fewer."""
        wide, length = torch.promote_types(q.dtype, torch.float32), k.shape[2]
        means = self.cut.means(k.to(wide), self.cut.valid(mask, length, k.device))
        there = self.cut.there(mask, length, k.device)[:, None]
        ends = self.cut.ends(length, k.device)
        number = torch.arange(filled.shape[-1], device=k.device)
        parts = []
        for rows in rows_at_a_time(q, means.shape[2] + len(number)):
            here = place[:, rows]
            own = here // self.cut.block
            sees = there & (ends <= here) if self.causal else there
            scores = (q[:, :, rows].to(wide) @ means.mT).masked_fill(~sees[:, None], -math.inf)
            # The largest weight is that of the largest score.
            total = self.cut.by_block(scores, len(number)).amax(-1)
            total = total.clamp(min=torch.finfo(wide).min)
            kept = (number > own - self.local) & (number <= own + self.ahead)
            kept = kept | (number >= start) & (number < start + self.first)
            free = filled[:, None] & ~kept
            free = free & (number <= own) if self.causal else free
            total = total.masked_fill(~free[:, None], -math.inf)
            parts.append(ranked(total, min(self.topk, len(number))))
        return torch.cat(parts, 2)
