"""Bi-level routing attention: regions of tokens choose regions, then tokens attend to tokens.

BiFormer (Zhu et al., CVPR 2023, arXiv 2303.08810), with the authors' code. Tokens are in regions of
r, and q', k' are the means of a region's queries and keys, all heads beside each other:

    A = q' k'^T,   R_i = the `topk` regions j with the largest A_ij
    o_a = softmax(q_a·k_b / sqrt(D)) v_b over the tokens b of the regions R_i, a in region i
    o = o + LCE(v), a depthwise convolution along the sequence (5 tokens, with bias)

All heads share the choice, and no gradient goes through it. ``density`` takes that share of the
regions where it is more than `topk`.

In the paper tokens lie on an image and regions are its squares, 7 x 7 of them whatever its size;
here regions are runs of r tokens, so that their number grows: extension. Cross attention, for which
the code has regions of other sizes on both sides, has no convolution, as keys lie beside queries
nowhere. Means of queries tell each of a region of the later ones, so there is no causal form: with
every token routed it would be another mechanism.

What else differs from the code: means are over valid tokens, and padding is in no softmax, where
the code leaves it as zeros; products are over sqrt(D), the width of a head, where the code takes
that of all heads (``full_dim``). Its soft and its parametric routing and its pooled keys are not
here; released models use none of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from attentions.shared.autocast import without_autocast
from attentions.shared.block_importance import Blocks, ranks
from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
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

_POOLED = "the mean of a region's queries, which routes each of them, holds the later ones"


@register_attention(
    AttentionInfo(
        id="biformer-bra",
        family=Family.SPARSE,
        title="Bi-level routing attention (BiFormer)",
        formula="o_i = softmax(q_i·k_j / sqrt(D)) v_j over the tokens of the k regions whose mean "
        "key has the largest product with the mean query of i's region, + DWConv(v)_i",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
        },
        absent={Pattern.CAUSAL_SELF: _POOLED, Pattern.CAUSAL_CROSS: _POOLED},
        time="L k r D + L^2 D / r^2",
        memory="L D + L^2 / r^2",
        paper="Zhu et al., BiFormer: Vision Transformer with Bi-Level Routing Attention",
        year=2023,
        url="https://arxiv.org/abs/2303.08810",
        options=(
            Option("block", 32, "r: tokens in a region", positive=True),
            Option("topk", 4, "k: regions that a region reads", positive=True),
            Option("density", 0.0, "share of the regions that is read at least", least=0, most=1),
            Option("kernel", 5, "odd: tokens of the convolution; 0: none", least=0),
            Option("full_dim", False, "products over the square root of all heads' width"),
        ),
        presets={"released": {"full_dim": True}},
    )
)
class BiLevelRoutingAttention(PartialReads):
    """Softmax over the tokens of the best regions, and a convolution of the values."""

    def __init__(
        self,
        spec: AttentionSpec,
        block: int = 32,
        topk: int = 4,
        density: float = 0.0,
        kernel: int = 5,
        full_dim: bool = False,
    ) -> None:
        super().__init__(spec)
        if kernel and kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, or 0, not {kernel}")
        self.block, self.topk, self.share = block, topk, density
        self.factor = spec.heads**-0.5 if full_dim else 1.0
        width = spec.heads * spec.value_dim
        self.lce: nn.Conv1d | None = None
        if kernel and not spec.pattern.cross:
            self.lce = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        own = AttentionContext() if context is None else context
        lists, bias = self._route(q, k, own), hidden_as_bias(own.key_mask, q)
        wide = v.to(torch.promote_types(v.dtype, torch.float32))
        out = block_sparse_attention(q * self.factor, k, wide, lists, bias=bias)
        return self._with_context(out, wide, own.key_mask).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Region by region of each row, and dense softmax under the mask; the convolution as a sum
        over shifts.
        """
        own = AttentionContext() if context is None else context
        self._check_lengths(q, k)
        sees = torch.zeros(q.shape[0], q.shape[2], k.shape[2], dtype=torch.bool, device=q.device)
        for row in range(q.shape[0]):
            means: list[list[tuple[int, Tensor]]] = []
            for x, mask in ((q, own.query_mask), (k, own.key_mask)):
                valid = torch.ones(x.shape[2], dtype=torch.bool) if mask is None else mask[row]
                parts = [slice(s, s + self.block) for s in range(0, x.shape[2], self.block)]
                tokens = x[row].detach().transpose(0, 1).flatten(1)
                means.append([
                    (i, tokens[part][valid[part]].mean(0))
                    for i, part in enumerate(parts)
                    if valid[part].any()
                ])  # fmt: skip
            keep = self._count(len(means[1]))
            for i, query in means[0]:
                ranked = [(-float(query @ key), j) for j, key in means[1]]
                for _, j in sorted(ranked)[:keep]:
                    region = slice(i * self.block, (i + 1) * self.block)
                    sees[row, region, j * self.block : (j + 1) * self.block] = True
        if own.key_mask is not None:
            sees = sees & own.key_mask[:, None]
        out = exact_softmax_attention(q * self.factor, k, v, sees[:, None])
        if self.lce is None:
            return out
        weight, bias = self.lce.weight.to(v.dtype), self.lce.bias
        values = v.transpose(1, 2).flatten(2)
        half, length = weight.shape[-1] // 2, values.shape[1]
        shifted = nn.functional.pad(values, (0, 0, half, half))
        near = torch.zeros_like(values)
        for at in range(weight.shape[-1]):
            near = near + weight[:, 0, at] * shifted[:, at : at + length]
        if bias is not None:
            near = near + bias.to(v.dtype)
        near = near.unflatten(2, (v.shape[1], -1)).transpose(1, 2)
        return out + near * self._alive(v, own.key_mask)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        bias = hidden_as_bias(context.key_mask, q)
        lists = self._route(q, k, context)
        return columns_read(lists, q.shape, k.shape[2], bias=bias, query_mask=context.query_mask)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair in the regions that are read, products of regions, and the
        convolution.
        """
        rows, width = shape.batch * shape.heads, shape.head_dim + shape.value_dim
        regions = -(-shape.length_k // self.block)
        read = min(shape.length_k, self._count(regions) * self.block)
        pooled = shape.length_q / self.block * regions * shape.head_dim
        total = shape.length_q * read * width + pooled
        if self.lce is not None:
            total += shape.length_q * shape.value_dim * self.lce.kernel_size[0]
        return 2.0 * rows * total

    def _check_lengths(self, q: Tensor, k: Tensor) -> None:
        if not self.pattern.cross and q.shape[2] != k.shape[2]:
            raise NotImplementedError("regions of queries are routed as a whole: Lq must be Lk")

    def _count(self, regions: int) -> int:
        """Regions that are read of those that have a valid token."""
        return min(regions, max(self.topk, math.ceil(self.share * regions - 1e-9)))

    @torch.no_grad()
    def _route(self, q: Tensor, k: Tensor, context: AttentionContext) -> BlockLists:
        """The regions that each region reads."""
        self._check_lengths(q, k)
        queries = Blocks.of(q, context.query_mask, self.block)
        keys = Blocks.of(k, context.key_mask, self.block)
        means = (x.means().transpose(1, 2).flatten(2) for x in (queries, keys))
        first, second = means
        filled = keys.counts > 0
        scores = (first @ second.mT).masked_fill(~filled[:, None], -math.inf)
        _, order = ranks(scores)
        keep = [self._count(x) for x in filled.sum(-1).tolist()]
        rank = torch.arange(scores.shape[-1], device=q.device)
        kept = rank < torch.tensor(keep, device=q.device)[:, None, None]
        kept = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, kept.expand_as(order))
        return BlockLists(lists_of(kept)[:, None], self.block, self.block)

    def _with_context(self, out: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Add the convolution of values (B, H, L, Dv) in float32 at least."""
        if self.lce is None:
            return out
        near = nn.functional.conv1d(
            v.transpose(2, 3).flatten(1, 2),
            self.lce.weight.to(v.dtype),
            None if self.lce.bias is None else self.lce.bias.to(v.dtype),
            padding=self.lce.padding,
            groups=self.lce.groups,
        )
        near = near.unflatten(1, (v.shape[1], -1)).transpose(2, 3)
        return out + near * self._alive(v, mask)

    def _alive(self, v: Tensor, mask: Tensor | None) -> Tensor:
        """(B or 1, 1, 1, 1) zero in a row of the batch without a valid key, which has no output."""
        if mask is None:
            return v.new_ones(1, 1, 1, 1)
        return mask.any(-1).to(v.dtype)[:, None, None, None]
