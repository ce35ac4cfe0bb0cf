"""Rectified sparse attention: block-sparse softmax, and block means for what it leaves out.

Rectified SpaAttn (Liu et al. 2025, arXiv 2511.19835), with the authors' code. Tokens are in blocks
of b, and q', k', v' are the means of a block. For query block i and key block j:

    S_ij = q'_i·k'_j,   P = softmax over j of (S_ij / sqrt(D) + ln n_j),   n_j tokens of block j

Critical blocks C_i are read token by token: those of rank below max(floor(density n), 1 + the
number of ranks whose cumulative P is at most p_remain) among the n that are seen, the neighbours of
block i on both sides, and global blocks. What is left is compensated by its means where they say
more than they blur (GAPR), with Δ the mean absolute deviation of a block's tokens from their mean:

    N_i = {j not in C_i: |S_ij| > |Δq_i·k'_j| + |q'_i·Δk_j|}
    o_a = (1 - sum over N_i of P_ij) softmax attention of q_a over the tokens of C_i
          + sum over N_i of P_ij v'_j

The first ``global_blocks`` blocks are for tokens that must not be pooled (text beside a video, in
the paper): their keys enter the softmax of P one by one, and the weight of means counts their
tokens (IPAR). No gradient goes through the choice of C and N; it does through P and the means.

Noncausal cross attention has no neighbours, as blocks of two sequences lie beside each other
nowhere. Causal patterns are adapted. A block's means tell each of its queries of the later ones, so
q', Δq and with them P, C and N are those of the block before it, and the first block reads all that
it sees. In self attention only blocks before the query's own enter P, which is normalised over
these, and its own is critical.

What else differs from the code: in the paper n_j is b, here it counts the valid tokens of a block,
which matters for the last one and for masks; neighbours are those in the sequence, not along a
Hilbert curve through a video; no layers are left dense.

There is no decoding: a prompt comes without queries, which the block after it would be routed by.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from attentions.shared.autocast import without_autocast
from attentions.shared.block_importance import Blocks, ranks
from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
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


class _Routes(NamedTuple):
    """What blocks of queries read token by token, and the weights of the means of others."""

    lists: BlockLists
    weights: Tensor
    """(B, H, query blocks, key blocks) P, zero outside N"""


@register_attention(
    AttentionInfo(
        id="rectified-spa",
        family=Family.SPARSE,
        title="Rectified sparse attention",
        formula="o_i = (1 - sum_N P_j) softmax over critical blocks (q_i·k / sqrt(D)) v "
        "+ sum_N P_j mean(v_j), P a softmax over block means",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="p L^2 D + L^2 D / b^2",
        memory="L D + L^2 / b^2",
        paper="Liu et al., Rectified SpaAttn: Revisiting Attention Sparsity for Efficient Video "
        "Generation",
        year=2025,
        url="https://arxiv.org/abs/2511.19835",
        options=(
            Option("block", 32, "b: tokens in a block", positive=True),
            Option("density", 0.25, "share of blocks that are critical by rank", least=0, most=1),
            Option("p_remain", 0.3, "share of P that critical blocks hold at least", least=0),
            Option("neighbors", 1, "critical blocks on each side of the query's own", least=0),
            Option("global_blocks", 0, "blocks at the beginning that are always read", least=0),
        ),
        presets={"paper": {"block": 128, "density": 0.25, "p_remain": 0.3}},
    )
)
class RectifiedSparseAttention(PartialReads):
    """Block-sparse softmax beside the block means of what is left out."""

    def __init__(
        self,
        spec: AttentionSpec,
        block: int = 32,
        density: float = 0.25,
        p_remain: float = 0.3,
        neighbors: int = 1,
        global_blocks: int = 0,
    ) -> None:
        super().__init__(spec)
        if density > 1 or p_remain > 1:
            raise ValueError(
                f"density ({density:g}) and p_remain ({p_remain:g}) are shares: at most 1"
            )
        self.block, self.share, self.p_remain = block, density, p_remain
        self.neighbors = 0 if spec.pattern.cross else neighbors
        self.near = not spec.pattern.cross
        self.global_blocks = global_blocks
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        self.shifted = spec.pattern.causal

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        own = AttentionContext() if context is None else context
        routes, means = self._route(q, k, own), Blocks.of(v, own.key_mask, self.block).means()
        bias = hidden_as_bias(own.key_mask, q)
        out = block_sparse_attention(q, k, v.to(means.dtype), routes.lists, bias=bias)
        rest = (routes.weights @ means).repeat_interleave(self.block, 2)[:, :, : q.shape[2]]
        share = 1 - routes.weights.sum(-1, keepdim=True)
        share = share.repeat_interleave(self.block, 2)[:, :, : q.shape[2]]
        return (share * out + rest).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Row by row of the batch and block by block, with dense softmax over what is critical."""
        own = AttentionContext() if context is None else context
        self._check_lengths(q, k)
        outs = []
        for row in range(q.shape[0]):
            masks = [
                torch.ones(x.shape[2], dtype=torch.bool) if m is None else m[row]
                for x, m in ((q, own.query_mask), (k, own.key_mask))
            ]
            starts = range(0, q.shape[2], self.block)
            blocks = [self._block(i, q[row], k[row], v[row], *masks) for i in range(len(starts))]
            outs.append(torch.cat(blocks, dim=1))
        return torch.stack(outs)

    def _block(
        self, i: int, q: Tensor, k: Tensor, v: Tensor, valid_q: Tensor, valid_k: Tensor
    ) -> Tensor:
        """(H, b, Dv) outputs of block i, of tokens (H, L, D)."""
        size, scale = self.block, q.shape[-1] ** -0.5
        parts = [slice(at, at + size) for at in range(0, k.shape[1], size)]
        filled = [j for j, part in enumerate(parts) if valid_k[part].any()]
        past = [j for j in filled if j < i or not self.causal]
        own, asking = slice(i * size, (i + 1) * size), i - self.shifted
        sees = torch.zeros(q.shape[0], k.shape[1], dtype=torch.bool)
        for j in filled:
            if j < self.global_blocks or (self.near and abs(i - j) <= self.neighbors):
                sees[:, parts[j]] = True
            if (self.causal and j == i) or asking < 0:
                sees[:, parts[j]] = True
        rest: float | Tensor = 0.0
        share: float | Tensor = 1.0
        pooled = [j for j in past if j >= self.global_blocks]
        if asking >= 0 and pooled:
            some = q[:, asking * size : (asking + 1) * size]
            some = some[:, valid_q[asking * size : (asking + 1) * size]]
            mean_q = some.mean(1) if some.shape[1] else torch.zeros_like(q[:, 0])
            spread_q = (some - mean_q[:, None]).abs().sum(1) / max(1, some.shape[1])
            means, spreads, values, counts = [], [], [], []
            for j in pooled:
                tokens = k[:, parts[j]][:, valid_k[parts[j]]]
                means.append(tokens.mean(1))
                spreads.append((tokens - means[-1][:, None]).abs().mean(1))
                values.append(v[:, parts[j]][:, valid_k[parts[j]]].mean(1))
                counts.append(tokens.shape[1])
            mean_k, spread_k = torch.stack(means, 1), torch.stack(spreads, 1)
            scores = (mean_k @ mean_q[..., None])[..., 0]
            logits = [scores * scale + torch.tensor(counts, dtype=q.dtype).log()]
            isolated = [j for j in past if j < self.global_blocks]
            for j in isolated:
                tokens = k[:, parts[j]][:, valid_k[parts[j]]]
                logits.append((tokens @ mean_q[..., None])[..., 0] * scale)
            p = torch.cat(logits, -1).softmax(-1)[:, : len(pooled)]
            shares = p.detach()
            error = (mean_k @ spread_q[..., None])[..., 0].abs()
            error = error + (spread_k @ mean_q[..., None])[..., 0].abs()
            weights = torch.zeros_like(p)
            for h in range(len(p)):
                order = sorted(range(len(pooled)), key=lambda x: -float(shares[h, x]))
                running, within = 0.0, 0
                for x in order:
                    running += float(shares[h, x])
                    within += running <= self.p_remain
                keep = max(math.floor(self.share * len(pooled) + 1e-9), within + 1)
                for x in order[:keep]:
                    sees[h, parts[pooled[x]]] = True
                weights[h] = torch.tensor(
                    [
                        not sees[h, parts[j]].any() and bool(scores[h, x].abs() > error[h, x])
                        for x, j in enumerate(pooled)
                    ]
                )
            weights = weights * p
            share = 1 - weights.sum(-1)[:, None, None]
            rest = weights[:, None] @ torch.stack(values, 1)
        mask = (sees & valid_k)[:, None]
        if self.causal:
            place = torch.arange(k.shape[1])
            mask = mask & (place <= place[own, None])
        return share * exact_softmax_attention(q[:, own], k, v, mask) + rest

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`; the mean of a compensated block counts as one column."""
        routes = self._route(q, k, context)
        read = columns_read(
            routes.lists,
            q.shape,
            k.shape[2],
            bias=hidden_as_bias(context.key_mask, q),
            query_mask=context.query_mask,
        )
        queries = Blocks.of(q, context.query_mask, self.block).counts[:, None]
        return read + ((routes.weights > 0).sum(-1) * queries).sum(-1)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair in the share of blocks that is critical by rank, and the
        scores and means of blocks.
        """
        pairs = shape.length_q * shape.length_k / (2 if self.causal else 1)
        width, rows = shape.head_dim + shape.value_dim, shape.batch * shape.heads
        blocks = shape.length_q * shape.length_k / self.block**2
        pooled = blocks * (3 * shape.head_dim + shape.value_dim)
        return 2 * rows * (self.share * pairs * width + pooled)

    def _check_lengths(self, q: Tensor, k: Tensor) -> None:
        if not self.pattern.cross and q.shape[2] != k.shape[2]:
            raise NotImplementedError("blocks of queries are routed as a whole: Lq must be Lk")

    def _route(self, q: Tensor, k: Tensor, context: AttentionContext) -> _Routes:
        """C as lists, and P where it compensates."""
        self._check_lengths(q, k)
        queries = Blocks.of(q, context.query_mask, self.block)
        keys = Blocks.of(k, context.key_mask, self.block)
        if self.shifted:
            queries = queries.before()
        means_q, means_k = queries.means(), keys.means()
        filled = keys.counts[:, None, None] > 0
        place_q = torch.arange(means_q.shape[2], device=q.device)[:, None]
        place_k = torch.arange(means_k.shape[2], device=q.device)
        past = place_k < place_q if self.causal else torch.ones_like(place_k < place_q)
        isolated = place_k < self.global_blocks
        seen = filled & past
        free = seen & ~isolated
        scores = means_q @ means_k.mT
        p = self._masses(scores, means_q, keys, free, seen & isolated)
        with torch.no_grad():
            critical = self._ranked(p, free) | isolated
            if self.near:
                critical = critical | ((place_q - place_k).abs() <= self.neighbors)
            if self.shifted:
                critical = critical | (place_q == 0)
            critical = critical & seen
            if self.causal:
                critical = critical | (place_q == place_k) & filled
            blur = (_spread(queries, means_q) @ means_k.mT).abs()
            blur += (means_q @ _spread(keys, means_k).mT).abs()
            compensated = free & ~critical & (scores.abs() > blur)
        lists = BlockLists(
            lists_of(critical.expand_as(p)),
            self.block,
            self.block,
            partial=int(self.causal),
            sees=not_later if self.causal else None,
        )
        return _Routes(lists, p.masked_fill(~compensated, 0.0))

    def _masses(
        self, scores: Tensor, means_q: Tensor, keys: Blocks, free: Tensor, isolated: Tensor
    ) -> Tensor:
        """(B, H, query blocks, key blocks) P, zero where a block is not free."""
        scale = means_q.shape[-1] ** -0.5
        counts = keys.counts[:, None, None].to(scores.dtype)
        logits = (scores * scale + counts.clamp(min=1).log()).masked_fill(~free, -math.inf)
        count = min(self.global_blocks, isolated.shape[-1])
        if count:
            tokens = keys.tokens[:, :, :count].flatten(2, 3)
            valid = keys.valid[:, None, None, :count].flatten(3)
            some = isolated[..., :count].repeat_interleave(self.block, -1) & valid
            single = (means_q @ tokens.mT * scale).masked_fill(~some, -math.inf)
            logits = torch.cat([logits, single], dim=-1)
        empty = (logits == -math.inf).all(-1, keepdim=True)
        p = logits.masked_fill(empty, 0.0).softmax(-1)[..., : scores.shape[-1]]
        return p.masked_fill(empty | ~free, 0.0)

    def _ranked(self, p: Tensor, free: Tensor) -> Tensor:
        """Bool, which of the free blocks have the ranks that are read."""
        count = free.sum(-1, keepdim=True)
        values, order = ranks(p.masked_fill(~free, -1.0))
        rank = torch.arange(p.shape[-1], device=p.device)
        within = ((values.cumsum(-1) <= self.p_remain) & (rank < count)).sum(-1, keepdim=True)
        quota = (count * self.share + 1e-9).floor().long()
        kept = rank < torch.minimum(torch.maximum(quota, within + 1), count)
        return torch.zeros_like(kept).scatter(-1, order, kept)


def _spread(blocks: Blocks, means: Tensor) -> Tensor:
    """(B, H, n, D) mean absolute deviation of the valid tokens from their mean."""
    off = (blocks.tokens - means[:, :, :, None]).abs() * blocks.valid[:, None, ..., None]
    counts = blocks.counts.clamp(min=1)[:, None, :, None]
    return off.sum(3) / counts.to(off.dtype)
