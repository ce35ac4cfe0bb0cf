"""Dynamic hierarchical sparse attention: tokens are chosen by the chunk of keys that they lie in.

DHSA (Xiong et al. 2025, arXiv 2510.24606), the algorithm of the paper's first version, with the
authors' code. Keys are cut into chunks where their content changes, all heads alike. With means
over the heads, k'_c is the mean key of chunk c times sqrt(n_c), and q'_b the mean query of a block
of queries times sqrt(n_b), which undoes that long means are short:

    S_bc = q'_b·k'_c,   every key inherits the score of its chunk
    block b reads the first G keys, R keys near it, and then the best until it reads N_b
    o_i = softmax over what its block reads of (q_i·k_j / sqrt(D)) v_j

with N_b = max(least, density n) of the n keys it may see. Of equal scores, so within a chunk, the
first keys come first. No gradient goes through the choice.

Boundaries: see `attentions.shared.content_chunks`. The gap behind a key is one if its score is
more than ``threshold`` standard deviations above the mean, boundaries are at least ``spacing``
apart, the better one first, and there is at most one for ``chunk`` keys. In the paper the score is
learned: an encoder of both windows, labelled by attention maps of the dense model. Here it is 1
less the cosine of both windows' mean keys, one of the features that the encoder is given, without
parameters: every pattern is graded adapted.

Causal patterns differ further. A block's mean query, the order of all boundaries by score, and a
window that reaches w keys beyond a gap all look ahead. So a block is routed by the queries of the
block before it; boundaries are decided `online`, as the keys come; and in self attention only keys
before the R that precede a block are ranked, of which all boundaries are known, a chunk that
reaches beyond them with its part before them. A block's own keys are read beside the budget. The
first block of a causal cross attention reads all keys. A ``query_block`` of 1 is routed by its own
query.

In noncausal self attention the R keys are half on each side of the block, which is read too; in
cross attention there are none, as places of two sequences say nothing of each other. Not here: the
last 64 queries of a prompt that the paper leaves dense, which would hang on its length, and the
later version of the code, which has blocks of fixed size in the place of chunks.

There is no decoding: a prompt comes without queries, which the block after it would be routed by.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.block_importance import Blocks, ranks
from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
from attentions.shared.content_chunks import boundary_scores, chunk_starts
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import hidden_as_bias, not_later
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

_CHOICES = 1 << 21
"""Pairs of a block and a key that are looked at together"""


class _Chunks(NamedTuple):
    """Keys of each row of the batch, cut into chunks; C is the largest number of them."""

    of: Tensor
    """(B, L) number of the chunk that a key lies in"""
    first: Tensor
    """(B, C) first key; L for a chunk that is not there"""
    last: Tensor
    """(B, C) one behind the last key"""
    before: Tensor
    """(B, L + 1) valid keys before each place"""
    sums: Tensor
    """(B, L + 1, D) float64, sum of the keys before each place, their mean over heads"""


@register_attention(
    AttentionInfo(
        id="dhsa",
        family=Family.SPARSE,
        title="Dynamic hierarchical sparse attention (DHSA)",
        formula="o_i = softmax(q_i·k_j / sqrt(D)) v_j over the first keys, those near, and those "
        "of the chunks c with the largest (sqrt(n_b) mean q)·(sqrt(n_c) mean k) for the block of i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="p L^2 D + L^2 / b",
        memory="L D + L^2 / b",
        paper="Xiong et al., Long-Context Modeling with Dynamic Hierarchical Sparse Attention for "
        "On-Device LLMs",
        year=2025,
        url="https://arxiv.org/abs/2510.24606",
        options=(
            Option("density", 0.25, "share of the keys in a block's budget", least=0, most=1),
            Option("least", 64, "keys in the budget at least", positive=True),
            Option("query_block", 32, "queries in a block; 1: each query is routed", positive=True),
            Option("first_keys", 16, "G: keys at the beginning that all read", least=0),
            Option("near_keys", 32, "R: keys near a block that it reads", least=0),
            Option("window", 4, "w: keys on each side of a gap that are compared", positive=True),
            Option("threshold", 0.0, "standard deviations of a boundary's score above the mean"),
            Option("spacing", 8, "keys between boundaries at least", positive=True),
            Option("chunk", 32, "keys for each boundary at least, not where causal", positive=True),
        ),
        presets={
            "paper": {"query_block": 128, "first_keys": 128, "near_keys": 128, "least": 1024,
                      "threshold": 1.1, "chunk": 128},
        },
    )
)  # fmt: skip
class DynamicHierarchicalSparseAttention(PartialReads):
    """Softmax over keys at the beginning, near, and in the best chunks for a block of queries."""

    def __init__(
        self,
        spec: AttentionSpec,
        density: float = 0.25,
        least: int = 64,
        query_block: int = 32,
        first_keys: int = 16,
        near_keys: int = 32,
        window: int = 4,
        threshold: float = 0.0,
        spacing: int = 8,
        chunk: int = 32,
    ) -> None:
        super().__init__(spec)
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        if self.causal and near_keys < window:
            raise ValueError(
                f"near_keys ({near_keys}) must be at least window ({window}): boundaries are known "
                "that late"
            )
        self.share, self.least, self.block = density, least, query_block
        self.first_keys, self.near_keys = first_keys, near_keys
        self.window, self.threshold = window, threshold
        self.spacing, self.chunk = spacing, chunk
        self.shifted = spec.pattern.causal and query_block > 1

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        own = AttentionContext() if context is None else context
        lists = self._route(q, k, own)
        return block_sparse_attention(q, k, v, lists, bias=hidden_as_bias(own.key_mask, q))

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Block by block: every key's score, a sort of the keys, and dense softmax."""
        own = AttentionContext() if context is None else context
        self._check_lengths(q, k)
        length, valid = k.shape[2], _valid(own.key_mask, k)
        asked = _valid(own.query_mask, q)
        starts = self._starts(k, valid)
        sees = torch.zeros(q.shape[0], q.shape[2], length, dtype=torch.bool, device=q.device)
        for b in range(q.shape[0]):
            keys, queries = k[b].mean(0), q[b].mean(0)
            edges = [*starts[b].nonzero()[:, 0].tolist(), length]
            known = valid[b].nonzero()[:, 0].tolist()
            for s in range(0, q.shape[2], self.block):
                low, high, end = self._near(s, length)
                may = [j for j in known if j < s or not self.causal]
                read = [j for j in may if j in known[: self.first_keys] or low <= j < high]
                asking = s - self.block * self.shifted
                some = queries[max(asking, 0) : asking + self.block]
                some = some[asked[b, max(asking, 0) : asking + self.block]]
                if asking < 0:
                    read = may
                elif len(some):
                    query = some.mean(0) * len(some) ** 0.5
                else:
                    query = torch.zeros_like(queries[0])
                ranked: list[tuple[float, int]] = []
                for c, d in itertools.pairwise(edges):
                    inside = [j for j in known if c <= j < min(d, end)]
                    free = [j for j in inside if j not in read]
                    if asking >= 0 and free:
                        score = (
                            keys[inside].mean(0) * len(inside) ** 0.5
                        ).detach() @ query.detach()
                        ranked += [(-float(score), j) for j in free]
                budget = max(self.least, math.ceil(self.share * len(may) - 1e-9))
                # A stable sort of what is in the order of places.
                ranked.sort(key=lambda x: x[0])
                read = read + [j for _, j in ranked[: max(0, budget - len(read))]]
                if self.causal:
                    read = read + [j for j in known if s <= j < s + self.block]
                sees[b, s : s + self.block, read] = True
        if self.causal:
            sees = sees.tril()
        return exact_softmax_attention(q, k, v, (sees & valid[:, None])[:, None])

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        lists = self._route(q, k, context)
        bias = hidden_as_bias(context.key_mask, q)
        return columns_read(lists, q.shape, k.shape[2], bias=bias, query_mask=context.query_mask)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair in the budget, as many chunks as there may be, and the
        mean of the heads.
        """
        total, chunks = 0.0, shape.length_k / (self.spacing if self.causal else self.chunk)
        for s in range(0, shape.length_q, self.block):
            queries = min(self.block, shape.length_q - s)
            seen = s if self.causal else shape.length_k
            keys = min(seen, max(self.least, self.share * seen, self.first_keys + self.near_keys))
            if self.shifted and not s:
                keys = seen
            total += queries * (keys + (queries + 1) / 2 * self.causal)
        scores = 2 * shape.batch * shape.length_q / self.block * chunks * shape.head_dim
        width = shape.head_dim + shape.value_dim
        return 2.0 * shape.batch * shape.heads * total * width + scores

    def _check_lengths(self, q: Tensor, k: Tensor) -> None:
        if not self.pattern.cross and q.shape[2] != k.shape[2]:
            raise NotImplementedError("blocks of queries are routed as a whole: Lq must be Lk")

    def _near(self, s: int, length: int) -> tuple[int, int, int]:
        """For the block from place s on: which keys are near, and the end of those in chunks."""
        if self.pattern.cross:
            return 0, 0, length
        if self.causal:
            low = max(0, s - self.near_keys)
            return low, s, low
        half = self.near_keys // 2
        return max(0, s - half), min(length, s + self.block + half), length

    def _starts(self, k: Tensor, valid: Tensor) -> Tensor:
        """(B, L) bool, True at the first key of each chunk."""
        scores, candidates = boundary_scores(k, valid, self.window)
        return chunk_starts(
            scores,
            candidates,
            threshold=self.threshold,
            spacing=self.spacing,
            most=[max(1, x // self.chunk) for x in valid.sum(-1).tolist()],
            online=self.causal,
        )

    @torch.no_grad()
    def _route(self, q: Tensor, k: Tensor, context: AttentionContext) -> BlockLists:
        """The keys that each block of queries reads: units of one key."""
        self._check_lengths(q, k)
        length, valid = k.shape[2], _valid(context.key_mask, k)
        dtype = torch.promote_types(q.dtype, torch.float32)
        chunks = _cut(k.to(dtype), valid, self._starts(k, valid))
        queries = Blocks.of(q.to(dtype).mean(1, keepdim=True), context.query_mask, self.block)
        if self.shifted:
            queries = queries.before()
        asking = (queries.means() * queries.counts[:, None, :, None].sqrt())[:, 0].double()
        near = [self._near(s, length) for s in range(0, q.shape[2], self.block)]
        bounds = torch.tensor(near, device=k.device)
        step = max(1, _CHOICES // valid.numel())
        tiles = zip(asking.split(step, 1), bounds.split(step), strict=True)
        kept = torch.cat([self._best(own, chunks, valid, at) for own, at in tiles], 1)
        begin = torch.arange(len(near), device=k.device)[:, None] * self.block
        place = torch.arange(length, device=k.device)
        if self.shifted:
            kept[:, 0] = True
        if self.causal:
            kept &= place < begin
            kept |= (place >= begin) & (place < begin + self.block)
        kept &= valid[:, None]
        return BlockLists(
            lists_of(kept)[:, None],
            self.block,
            1,
            partial=self.block if self.causal else 0,
            sees=not_later if self.causal else None,
        )

    def _best(self, asking: Tensor, chunks: _Chunks, valid: Tensor, bounds: Tensor) -> Tensor:
        """(B, blocks, L) bool: first keys, near ones, and the best of the others, for blocks that
        ask (B, blocks, D); of their bounds (blocks, 3) see `_near`.
        """
        length = valid.shape[1]
        low, high, end = (x[None, :, None] for x in bounds.unbind(-1))
        place = torch.arange(length, device=valid.device)
        rank = chunks.before[:, None, :-1]
        must = valid[:, None] & ((rank < self.first_keys) | (place >= low) & (place < high))
        must &= (place < end) | (place >= low) & (place < high)
        free = valid[:, None] & (place < end) & ~must
        # Free keys of each chunk, and before each key in its own.
        ahead = F.pad(free.int().cumsum(-1), (1, 0))
        count = _at(ahead, chunks.last) - _at(ahead, chunks.first)
        scores = _scores(asking, chunks, end[..., 0]).masked_fill(count == 0, -math.inf)
        _, order = ranks(scores)
        taken = count.gather(-1, order)
        seen = self._seen(chunks, bounds)
        budget = (self.share * seen - 1e-9).ceil().clamp(min=self.least).long()
        left = (budget - must.sum(-1)).clamp(min=0)[..., None]
        taken = torch.minimum((left - taken.cumsum(-1) + taken).clamp(min=0), taken)
        taken = torch.zeros_like(taken).scatter_(-1, order, taken)
        within = ahead[..., :-1] - _at(_at(ahead, chunks.first), chunks.of)
        return must | free & (within < _at(taken, chunks.of))

    def _seen(self, chunks: _Chunks, bounds: Tensor) -> Tensor:
        """(B, blocks) valid keys that a block may see, before its own in causal self attention."""
        end = bounds[:, 1] if self.causal else torch.full_like(bounds[:, 2], len(chunks.of[0]))
        return chunks.before[:, end].double()


def _valid(mask: Tensor | None, x: Tensor) -> Tensor:
    """(B, L) bool of tokens (B, H, L, D)."""
    if mask is not None:
        return mask
    return torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """(B, blocks, n) of x (B, blocks, m) at an index (B, n)."""
    return x.gather(-1, index[:, None].expand(-1, x.shape[1], -1))


def _cut(k: Tensor, valid: Tensor, starts: Tensor) -> _Chunks:
    """Keys (B, H, L, D) in chunks."""
    length = k.shape[2]
    number = starts.long().cumsum(-1) - 1
    first = lists_of(starts)
    # Lists are filled up at the front.
    first = first.masked_fill(first < 0, length).sort(-1).values
    last = F.pad(first[:, 1:], (0, 1), value=length)
    sums = F.pad(k.double().mean(1).cumsum(1), (0, 0, 1, 0))
    return _Chunks(number, first, last, F.pad(valid.long().cumsum(-1), (1, 0)), sums)


def _scores(asking: Tensor, chunks: _Chunks, end: Tensor) -> Tensor:
    """(B, blocks, C) scores of chunks for blocks that ask (B, blocks, D), of the part of each chunk
    that lies before the block's end (1, blocks).
    """
    batch, blocks, dim = asking.shape

    def key(first: Tensor, last: Tensor) -> Tensor:
        count = chunks.before.gather(1, last) - chunks.before.gather(1, first)
        low, high = (chunks.sums.gather(1, x[..., None].expand(-1, -1, dim)) for x in (first, last))
        return (high - low) / count.clamp(min=1)[..., None].double().sqrt()

    scores = asking @ key(chunks.first, chunks.last).mT
    # The one chunk that a block's end cuts.
    end = end.expand(batch, blocks)
    cut = chunks.of.gather(1, (end - 1).clamp(min=0))
    part = (asking * key(chunks.first.gather(1, cut).clamp(max=end), end)).sum(-1, keepdim=True)
    return scores.scatter(-1, cut[..., None], part)
