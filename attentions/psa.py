"""Pyramid sparse attention: each query block reads each key block at a resolution, or not at all.

Li et al. 2025, arXiv 2512.04025, with the authors' code. Keys and values are averaged over r = 1,
2, 4 and 8 consecutive tokens. Per block of queries, every block of keys gets a level M in {0, 1, 2,
4, 8} by its importance; 0 is skipped. One softmax covers everything that the block reads:

    o_i = sum over blocks j and slots m of level r = M_ij:
          softmax(q_i·K^r_jm / sqrt(D) + ln r) V^r_jm

so that a slot counts as the tokens that it stands for. Importance of a pair of blocks, from samples
of a quarter of their tokens (the same places in all blocks, drawn when the module is built):

    maxexp    max_a exp(R_aj - max_j R_aj),  R_aj = max over keys of block j of q_a·k / sqrt(D)
    meanpool  exp of the product of the blocks' mean query and mean key / sqrt(D), all tokens
    xattn     softmax mass of sums of scores along antidiagonals (arXiv 2503.16428), all tokens

Blocks are ranked by it, and n is the number that the query block may see. ``topk``: level r gets
the ranks up to floor(n (share of r and of the levels before it)), in the order 1, 2, 4, 8.
``threshold``: the ranks up to which the cumulative importance does not exceed that share of the
total, and one more; level 1 at least floor(0.06 n) + 1. ``similarity`` caps the level of a block
whose keys are not alike: mean cosines of first and last tokens of 2, 4, 8 must exceed .7, .65, .6
(``video``) or .75, .7, .7 (``text``). No gradient goes through the choice; it does through the
means.

Noncausal cross attention is the same operator. Causal patterns are adapted. The choice for a block
of queries would tell each of them what the later ones look for, so a block is routed by the queries
of the block before it, and the first one reads all that it sees. A ``query_block`` of 1 is routed
by its own query. In self attention the blocks on the diagonal and the first one are read at level
1, as in the authors' causal variant, and only blocks before the first query of a block are ranked.

What else differs:

* masked tokens are in no mean, and ln r becomes the logarithm of the number of valid tokens; a
  block without any is not there;
* with ``topk`` level 1 gets at least one block, for short sequences;
* quotas are not rounded to multiples of what a kernel's tile holds.

The option ``density``, which is not published, scales the four shares to what they read of the
ranked blocks; what is read in any case (the diagonal, the first blocks) comes on top.

There is no decoding: a prompt comes without queries, which the block after it would be routed by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attentions.shared.block_importance import IMPORTANCE, Blocks, ranks
from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
from attentions.shared.density import PartialReads
from attentions.shared.positions import at_positions
from attentions.shared.pyramid_reference import dense_pyramid_attention
from attentions.shared.pyramids import (
    COARSEST,
    PyramidRules,
    coarsest_similar_level,
    first_unit,
    levels_by_rank,
    pyramid,
    pyramid_bias,
    shares_of_density,
    units_of,
)
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

_SIMILAR = {"off": None, "video": (0.7, 0.65, 0.6), "text": (0.75, 0.7, 0.7)}
"""Thresholds of levels 2, 4 and 8"""


@register_attention(
    AttentionInfo(
        id="psa",
        family=Family.SPARSE,
        title="Pyramid sparse attention (PSA)",
        formula="o_i = softmax over blocks j, slots m (q_i·K^r_jm / sqrt(D) + ln r) V^r_jm, keys "
        "averaged over r = 1, 2, 4, 8 tokens by the rank of block j for the block of i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="p L^2 D + L^2 D / s",
        memory="L D + L^2 / b^2",
        paper="Li et al., PSA: Pyramid Sparse Attention for Efficient Video Understanding and "
        "Generation",
        year=2025,
        url="https://arxiv.org/abs/2512.04025",
        options=(
            Option("block", 32, "keys in a block; a multiple of 8", positive=True),
            Option("query_block", 32, "queries in a block; 1: each query is routed", positive=True),
            Option("importance", "maxexp", "what blocks are ranked by",
                   choices=("maxexp", "meanpool", "xattn")),
            Option("selection", "topk", "quotas of ranks or of importance",
                   choices=("topk", "threshold")),
            Option("share_1", 0.15, "of the blocks that are read token by token", least=0),
            Option("share_2", 0.15, "of those averaged over 2 tokens", least=0),
            Option("share_4", 0.2, "of those averaged over 4 tokens", least=0),
            Option("share_8", 0.25, "of those averaged over 8 tokens", least=0),
            Option("density", 0.0, "of topk, to which the four shares are scaled; 0: as they are",
                   least=0, most=1),
            Option("similarity", "off", "cap the level where keys are not alike",
                   choices=("off", "video", "text")),
        ),
        presets={
            "video": {"block": 64, "query_block": 128, "share_1": 0.1, "share_2": 0.05,
                      "share_4": 0.0, "share_8": 0.2},
            "wan": {"block": 64, "query_block": 128, "selection": "threshold", "share_1": 0.4,
                    "share_2": 0.1, "share_4": 0.1, "share_8": 0.2},
            "language": {"block": 64, "query_block": 128, "importance": "xattn",
                         "share_1": 0.05, "share_2": 0.1, "share_4": 0.1, "share_8": 0.25},
        },
    )
)  # fmt: skip
class PyramidSparseAttention(PartialReads):
    """Softmax over keys at four resolutions, by the importance of their block."""

    sampled_queries: Tensor
    sampled_keys: Tensor

    def __init__(
        self,
        spec: AttentionSpec,
        block: int = 32,
        query_block: int = 32,
        importance: str = "maxexp",
        selection: str = "topk",
        share_1: float = 0.15,
        share_2: float = 0.15,
        share_4: float = 0.2,
        share_8: float = 0.25,
        density: float = 0.0,
        similarity: str = "off",
    ) -> None:
        super().__init__(spec)
        if block % COARSEST:
            raise ValueError(f"block must be a multiple of {COARSEST}, not {block}")
        if block % query_block and query_block % block:
            raise ValueError(
                f"one of block ({block}) and query_block ({query_block}) must divide the other"
            )
        shares = (share_1, share_2, share_4, share_8)
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"the four shares add up to {sum(shares):g}, which is more than 1")
        if density:
            if selection != "topk":
                raise ValueError("density is of topk: shares of importance do not say what is read")
            shares = shares_of_density(shares, density)
        self.rules = PyramidRules(
            block,
            query_block,
            importance,
            selection,
            shares,
            _SIMILAR[similarity],
            causal=spec.pattern is Pattern.CAUSAL_SELF,
            shifted=spec.pattern.causal and query_block > 1,
        )
        for name, size in (("sampled_queries", query_block), ("sampled_keys", block)):
            places = torch.randperm(size)[: max(1, size // 4)].sort().values
            self.register_buffer(name, places)

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        own = AttentionContext() if context is None else context
        lists, keys = self._route(q, k, own)
        values = Blocks.of(v, own.key_mask, self.rules.block)
        columns, means = pyramid(keys).to(q.dtype), pyramid(values)
        out = block_sparse_attention(q, columns, means, lists, bias=pyramid_bias(keys))
        return out.to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Levels block by block, and dense softmax over the columns of all levels."""
        own = AttentionContext() if context is None else context
        self._check_lengths(q, k)
        samples = (self.sampled_queries, self.sampled_keys)
        return dense_pyramid_attention(self.rules, q, k, v, own.query_mask, own.key_mask, samples)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        lists, keys = self._route(q, k, context)
        bias = pyramid_bias(keys)
        return columns_read(lists, q.shape, bias.shape[1], bias=bias, query_mask=context.query_mask)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each column that ``topk`` reads, and the scores of samples.

        With ``threshold`` the shares are of importance, and blocks are fewer.
        """
        rules = self.rules
        pairs = float(shape.length_q * shape.length_k)
        pairs = pairs / 2 if rules.causal else pairs
        levels = zip((1, 2, 4, 8), rules.shares, strict=True)
        density = sum(share / level for level, share in levels)
        sampled = len(self.sampled_queries) * len(self.sampled_keys)
        routed = {
            "maxexp": sampled / (rules.block * rules.query_block),
            "meanpool": 1 / (rules.block * rules.query_block),
            "xattn": 1 / math.gcd(16, rules.block, rules.query_block),
        }[rules.importance]
        width = shape.head_dim + shape.value_dim
        rows = shape.batch * shape.heads
        every_pair = shape.length_q * shape.length_k
        return 2 * rows * (density * pairs * width + routed * every_pair * shape.head_dim)

    def _check_lengths(self, q: Tensor, k: Tensor) -> None:
        if not self.pattern.cross and q.shape[2] != k.shape[2]:
            raise NotImplementedError("blocks of queries are routed as a whole: Lq must be Lk")

    def _route(self, q: Tensor, k: Tensor, context: AttentionContext) -> tuple[BlockLists, Blocks]:
        """What each block of queries reads of the pyramid, and the keys in blocks."""
        self._check_lengths(q, k)
        rules = self.rules
        keys = Blocks.of(k, context.key_mask, rules.block)
        filled = keys.valid.any(-1)[:, None, None]
        with torch.no_grad():
            queries = Blocks.of(q, context.query_mask, rules.query_block)
            count_q, count_k = queries.tokens.shape[2], keys.tokens.shape[2]
            first = torch.arange(count_q, device=q.device)[:, None] * rules.query_block
            start = torch.arange(count_k, device=q.device) * rules.block
            past = start + rules.block <= first
            if not rules.causal:
                past = torch.ones_like(past)
            levels = self._levels(queries, keys, filled & past)
            if rules.shifted:
                levels[:, :, 0] = 1
            if rules.causal:
                near = ~past & (start < first + rules.query_block) | past & (start == 0)
                levels = levels.masked_fill(near, 1).masked_fill(~past & ~near, 0)
            levels = levels.masked_fill(~filled, 0)
            lists = lists_of(units_of(levels))
        unit = rules.block // COARSEST
        tokens = first_unit(1, count_k) * unit

        def not_later(query: Tensor, column: Tensor) -> Tensor:
            # Columns of coarser levels are of blocks that ended before the query's.
            return column - tokens <= query

        diagonal = max(1, rules.query_block // rules.block) * COARSEST
        partial = diagonal if rules.causal else 0
        return BlockLists(lists, rules.query_block, unit, partial, not_later), keys

    def _levels(self, queries: Blocks, keys: Blocks, allowed: Tensor) -> Tensor:
        """(B, H, query blocks, key blocks) level of each pair of which the choice is free."""
        rules, asking = self.rules, queries.before() if self.rules.shifted else queries
        sampled = rules.importance == "maxexp"
        scores = IMPORTANCE[rules.importance](
            asking.at(self.sampled_queries) if sampled else asking,
            keys.at(self.sampled_keys) if sampled else keys,
            allowed,
        )
        # Blocks that have nothing in the sample come last, before those that may not be chosen.
        scores = scores.clamp(min=torch.finfo(scores.dtype).min)
        values, order = ranks(scores.masked_fill(~allowed, float("-inf")))
        by_rank = levels_by_rank(rules, values, allowed.sum(-1, keepdim=True))
        levels = torch.zeros_like(order).scatter(-1, order, by_rank.expand_as(order))
        if rules.similar is not None:
            cap = coarsest_similar_level(keys, rules.similar)[:, :, None]
            levels = torch.minimum(levels, cap)
        return levels
