"""PAROAttention: tokens of a grid in the order that makes the map block-sparse, per head.

Zhao et al. 2025, arXiv 2506.16054, for video and images. A head's map is diagonal in one order of
the axes of the grid and scattered in another. Each head takes the order of axes in which its map
falls into blocks best, reads the blocks of b x b tokens with the largest mass, and puts its outputs
back in place:

    order = argmin over orders of the axes of (empty / sum of empty + uneven / sum of uneven) / 2
    empty = share of blocks that hold at least a tenth of the mean mass
    uneven = mean over blocks of the largest weight over the mean weight
    o_i = softmax over the tokens of the blocks that are kept (q_i·k_j / sqrt(D)) v_j

Kept are the ceil(density n) blocks of the largest mass of the n that hold tokens, the blocks on the
diagonal, and a last block that is not full, as row and as column. A grid of three axes has six
orders, one of two has two. Tokens without a grid are laid in rows of ``columns`` tokens.

How the authors weigh the two criteria and find the threshold is not published with their kernels:
what stands here is a reconstruction. It is adapted in two more ways. The authors choose order and
blocks once, offline, from maps averaged over calibration samples of a trained model; a model that
is trained with the mechanism has no such maps, so each sequence and head chooses for itself, from
the softmax rows of a few evenly spaced queries of each block. Blocks that are not kept are left out
of the softmax, as in the kernels; their simulation multiplies them by zero behind it.

Their kernels compute with integers. With ``quantize`` the numbers are rounded as there, and the
products are those of floating point: it shows what quantisation costs in quality, and saves no
time. In the order of the head, queries are INT8 in groups of 32 and keys in blocks, each with a
scale of its own (max|x| / 127); weights are unsigned in each pair of blocks (max / 255, or 15), and
values symmetric in each channel (max|x| / 127, or 7). The released kernels have no INT4 product of
weights and values, so that is the paper's text alone. The gradient passes rounding over, so that a
model can be trained with it; the authors quantise after training.

No gradient goes through the choice. Masked tokens keep their place in the grid, but those behind
the last valid token of a sequence stand last in every order.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from attentions.shared.block_importance import Blocks, ranks
from attentions.shared.block_sparse import block_sparse_attention, columns_read
from attentions.shared.block_tiles import BlockLists, lists_of
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax, exact_softmax_attention
from attentions.shared.fake_quantized import rounded, rounded_in_groups
from attentions.shared.masks import hidden_as_bias, valid_lengths
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

_WEIGHTS = 1 << 22
"""Weights of sampled queries that are alive at a time"""
_EMPTY = 0.1
"""A block with less than this part of the mean mass is empty"""
_INT8 = 127
_LEVELS = {"off": 0, "int8": 255, "int4": 15}
"""Steps of unsigned weights; a signed number has half of them on each side of zero"""
_WARP = 32
"""Queries that share a scale"""
_NO_ORDER = "a reordered sequence has no past: blocks of tokens hold earlier and later ones"


@register_attention(
    AttentionInfo(
        id="paro",
        family=Family.SPARSE,
        title="PAROAttention (reordered block-sparse attention)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j over the blocks of largest mass in the "
        "order of the grid's axes that suits the head",
        patterns={Pattern.NONCAUSAL_SELF: Grade.ADAPTED},
        absent={
            Pattern.CAUSAL_SELF: _NO_ORDER,
            Pattern.NONCAUSAL_CROSS: "queries and keys would have to lie on grids that correspond",
            Pattern.CAUSAL_CROSS: _NO_ORDER,
        },
        time="p L^2 D + L^2 D / s",
        memory="L D + L^2 / b^2",
        paper="Zhao et al., PAROAttention: Pattern-Aware ReOrdering for Efficient Sparse and "
        "Quantized Attention in Visual Generation Models",
        year=2025,
        url="https://arxiv.org/abs/2506.16054",
        options=(
            Option("block", 64, "b: tokens in a block", positive=True),
            Option("density", 0.3, "share of blocks that are kept by their mass", least=0, most=1),
            Option("samples", 4, "queries of a block whose map is looked at", positive=True),
            Option("columns", 16, "tokens in a row where there is no grid", positive=True),
            Option("reorder", True, "let each head choose among the orders"),
            Option(
                "quantize",
                "off",
                "numbers of an integer kernel: q and k INT8, weights and values as named",
                choices=("off", "int8", "int4"),
            ),
        ),
    )
)
class PARO(PartialReads):
    """Block-sparse softmax in the order of the grid's axes that suits each head."""

    def __init__(
        self,
        spec: AttentionSpec,
        block: int = 64,
        density: float = 0.3,
        samples: int = 4,
        columns: int = 16,
        reorder: bool = True,
        quantize: str = "off",
    ) -> None:
        super().__init__(spec)
        if density > 1:
            raise ValueError(f"density is a share of the blocks: at most 1, not {density:g}")
        self.block, self.share, self.columns, self.reorder = block, density, columns, reorder
        self.samples = min(samples, block)
        self.levels = _LEVELS[quantize]

    @at_positions
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`.

        Raises:
            ValueError: the grid of the context does not hold the tokens, or has more than three
                axes.
        """
        own = AttentionContext() if context is None else context
        order, lists = self._route(q, k, own)
        # Heads have orders, and so masks, of their own: each is a row of its own.
        queries, keys, values = (_placed(x, order).flatten(0, 1)[:, None] for x in (q, k, v))
        bias = self._bias(order, own, q)
        if self.levels:
            queries = rounded_in_groups(queries, _INT8, _WARP)
            keys = rounded_in_groups(keys, _INT8, self.block)
            values = rounded(values, self.levels // 2, (-2,))
        out = block_sparse_attention(queries, keys, values, lists, bias=bias, levels=self.levels)
        index = order[..., None].expand(*order.shape, v.shape[-1])
        return torch.zeros_like(v).scatter(2, index, out.view(v.shape))

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Sequence by sequence and head by head, with the whole map in memory."""
        own = AttentionContext() if context is None else context
        batch, heads, length = q.shape[:3]
        every = torch.ones(batch, length, dtype=torch.bool)
        valid_k = every if own.key_mask is None else own.key_mask
        valid_q = every if own.query_mask is None else own.query_mask
        sees = torch.zeros(batch, heads, length, length, dtype=torch.bool)
        order = torch.zeros(batch, heads, length, dtype=torch.long)
        with torch.no_grad():
            for b in range(batch):
                end = length
                if own.query_grid is None and own.key_mask is not None:
                    end = int((valid_k[b] * torch.arange(1, length + 1)).amax())
                orders = self._orders_of(own.query_grid, length, end)
                for h in range(heads):
                    scores = (q[b, h] @ k[b, h].T) * q.shape[-1] ** -0.5
                    map_ = scores.masked_fill(~valid_k[b], -math.inf).softmax(-1).nan_to_num(0.0)
                    found = self._seen(map_, orders, valid_q[b], valid_k[b], end)
                    sees[b, h], order[b, h] = found[0], torch.tensor(found[1])
        sees = sees & valid_k[:, None, None]
        if not self.levels:
            return exact_softmax_attention(q, k, v, sees)
        q, k, v, sees = (_placed(x, order) for x in (q, k, v, sees))
        return self._with_integers(q, k, v, sees, order)

    def _with_integers(
        self, q: Tensor, k: Tensor, v: Tensor, sees: Tensor, order: Tensor
    ) -> Tensor:
        """Softmax of tokens in order, and what they see in the order of queries; every group and
        pair of blocks rounded on its own. Outputs are in the tokens' own places.
        """
        length, size = q.shape[-2], self.block
        sees = sees.gather(3, order[:, :, None].expand_as(sees))
        q = torch.cat([_by_maximum(x, _INT8) for x in q.split(_WARP, dim=2)], dim=2)
        k = torch.cat([_by_maximum(x, _INT8) for x in k.split(size, dim=2)], dim=2)
        v = torch.cat([_by_maximum(x, self.levels // 2) for x in v.split(1, dim=3)], dim=3)
        weights = exact_softmax(q, k, sees)
        rows = [
            torch.cat([_by_maximum(x, self.levels) for x in row.split(size, dim=3)], dim=3)
            for row in weights.split(size, dim=2)
        ]
        out = torch.cat(rows, dim=2) @ v
        return _placed(out, order.argsort(-1)[..., :length])

    def _orders_of(self, grid: tuple[int, ...] | None, length: int, end: int) -> list[list[int]]:
        """Tokens in each order; those from ``end`` on come last."""
        grid = _checked(grid, length)
        if grid is None:
            by_column = sorted(range(end), key=lambda t: (t % self.columns, t // self.columns))
            orders = [list(range(end)), by_column]
        else:
            tokens = list(itertools.product(*(range(side) for side in grid)))
            orders = []
            for axes in itertools.permutations(range(len(grid))):
                keys = [[place[axis] for axis in axes] for place in tokens]
                orders.append(sorted(range(length), key=keys.__getitem__))
        orders = orders if self.reorder else orders[:1]
        return [order + list(range(len(order), length)) for order in orders]

    def _seen(
        self, map_: Tensor, orders: list[list[int]], valid_q: Tensor, valid_k: Tensor, end: int
    ) -> tuple[Tensor, list[int]]:
        """(L, L) bool of one head's map (L, L): the pairs of tokens whose blocks are kept; and the
        head's order.
        """
        length, size = len(map_), self.block
        starts = range(0, length, size)
        found = []
        for order in orders:
            mass, uneven = torch.zeros(len(starts), len(starts), dtype=map_.dtype), []
            filled = torch.zeros_like(mass, dtype=torch.bool)
            for i, top in enumerate(starts):
                places = [
                    top + (2 * s + 1) * size // (2 * self.samples) for s in range(self.samples)
                ]
                rows = [order[p] for p in places if p < length and valid_q[order[p]]]
                for j, left in enumerate(starts):
                    keys = [t for t in order[left : left + size] if valid_k[t]]
                    queries = [t for t in order[top : top + size] if valid_q[t]]
                    filled[i, j] = bool(keys) and bool(queries)
                    if rows and keys:
                        part = map_[rows][:, keys]
                        mass[i, j] = part.sum() / len(rows)
                        if part.sum() > 0:
                            uneven.append(float(part.max() / part.mean()))
            count = int(filled.sum())
            mean = float(mass.sum()) / max(1, count)
            full = int((filled & (mass >= _EMPTY * mean)).sum()) / max(1, count)
            found.append((mass, filled, full, sum(uneven) / max(1, len(uneven))))
        of_full, of_uneven = sum(x[2] for x in found) or 1.0, sum(x[3] for x in found) or 1.0
        losses = [x[2] / of_full + x[3] / of_uneven for x in found]
        best = losses.index(min(losses))
        mass, filled, _, _ = found[best]
        pairs = [(i, j) for i in range(len(mass)) for j in range(len(mass)) if filled[i, j]]
        pairs.sort(key=lambda p: -float(mass[p]))
        kept = torch.eye(len(mass), dtype=torch.bool)
        for i, j in pairs[: math.ceil(self.share * len(pairs) - 1e-9)]:
            kept[i, j] = True
        if end % size:
            kept[end // size] = kept[:, end // size] = True
        number = torch.empty(length, dtype=torch.long)
        number[orders[best]] = torch.arange(length) // size
        return kept[number][:, number], orders[best]

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        order, lists = self._route(q, k, context)
        shape = torch.Size((order.shape[0] * order.shape[1], 1, *q.shape[2:]))
        queries = context.query_mask
        if queries is not None:
            queries = queries[:, None].expand_as(order).gather(2, order).flatten(0, 1)
        bias = self._bias(order, context, q)
        read = columns_read(lists, shape, k.shape[2], bias=bias, query_mask=queries)
        return read.view(order.shape[:2])

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair in the kept share of blocks, and the scores of samples in
        two orders.
        """
        pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
        sampled = (2 if self.reorder else 1) * self.samples / self.block * shape.head_dim
        return 2 * pairs * (self.share * (shape.head_dim + shape.value_dim) + sampled)

    def _bias(self, order: Tensor, context: AttentionContext, like: Tensor) -> Tensor | None:
        """(B H, L) of the keys in the order of each head."""
        bias = hidden_as_bias(context.key_mask, like)
        if bias is None:
            return None
        return bias[:, None].expand(order.shape).gather(2, order).flatten(0, 1)

    @torch.no_grad()
    def _route(self, q: Tensor, k: Tensor, context: AttentionContext) -> tuple[Tensor, BlockLists]:
        """(B, H, L) token at each place of each head's order, and the blocks that are kept."""
        batch, heads, length = q.shape[:3]
        if k.shape[2] != length:
            raise NotImplementedError("blocks of queries are routed as a whole: Lq must be Lk")
        every = torch.ones(batch, length, dtype=torch.bool, device=q.device)
        valid_q = every if context.query_mask is None else context.query_mask
        valid_k = every if context.key_mask is None else context.key_mask
        ends = torch.full((batch,), length, device=q.device)
        if context.query_grid is None and context.key_mask is not None:
            ends = valid_lengths(valid_k)
        orders = self._orders(context.query_grid, length, ends)
        whole = length % self.block == 0
        holes = (
            not whole or context.query_mask is not None,
            not whole or context.key_mask is not None,
        )
        found = []
        for order in orders:
            index = order[:, None].expand(batch, heads, -1)
            queries = Blocks.of(_placed(q, index), valid_q.gather(1, order), self.block)
            keys = Blocks.of(_placed(k, index), valid_k.gather(1, order), self.block)
            found.append(self._looked_at(queries, keys, *holes))
        mass, filled, full, uneven = (torch.stack(x) for x in zip(*found, strict=True))
        shares = [x / x.sum(0).where(x.sum(0) > 0, 1.0) for x in (full, uneven)]
        best = (shares[0] + shares[1]).argmin(0)
        chosen = torch.stack(orders)[best, torch.arange(batch, device=q.device)[:, None]]
        pick = best[None, ..., None, None].expand(1, *mass.shape[1:])
        kept = self._kept(mass.gather(0, pick)[0], filled.gather(0, pick)[0], ends)
        lists = lists_of(kept.flatten(0, 1)[:, None])
        return chosen, BlockLists(lists, self.block, self.block)

    def _orders(self, grid: tuple[int, ...] | None, length: int, ends: Tensor) -> list[Tensor]:
        """(B, L) token at each place, for each order."""
        grid = _checked(grid, length)
        tokens = torch.arange(length, device=ends.device)
        if grid is None:
            across = tokens % self.columns * (length + 1) + tokens // self.columns
            beyond = tokens >= ends[:, None]
            keys = across.masked_fill(beyond, length * (length + self.columns) + self.columns)
            orders = [tokens.expand(len(ends), -1), keys.argsort(dim=-1, stable=True)]
        else:
            axes = itertools.permutations(range(len(grid)))
            laid = tokens.view(grid)
            orders = [laid.permute(a).flatten().expand(len(ends), -1) for a in axes]
        return orders if self.reorder else orders[:1]

    def _looked_at(
        self, queries: Blocks, keys: Blocks, query_holes: bool, key_holes: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mass (B, H, n, n) of blocks in rows of sampled queries, which blocks hold tokens, the
        share of blocks that are not empty and how uneven these are (B, H). Where no block has holes
        the weights, which are most of the work, are not masked.
        """
        size, device = self.block, queries.tokens.device
        places = (2 * torch.arange(self.samples, device=device) + 1) * size // (2 * self.samples)
        sampled, flat = queries.at(places), keys.tokens.flatten(2, 3)
        hidden = ~keys.valid.flatten(1)[:, None, None]
        batch, heads, count = queries.tokens.shape[:3]
        step = max(1, _WEIGHTS // (batch * heads * self.samples * flat.shape[2]))
        masses, ratios = [], []
        for start in range(0, count, step):
            rows = sampled.tokens[:, :, start : start + step]
            valid = sampled.valid[:, None, start : start + step, :, None]
            scores = (rows.flatten(2, 3) @ flat.mT).mul_(rows.shape[-1] ** -0.5)
            if key_holes:
                scores.masked_fill_(hidden, -math.inf)
            weights = scores.softmax(-1)
            if key_holes:
                weights.nan_to_num_(0.0)
            weights = weights.view(*rows.shape[:4], count, size)
            if query_holes:
                weights.mul_(valid[..., None])
            asked = valid.sum(3).clamp(min=1)
            mass = weights.sum((3, 5)) / asked
            mean = mass / keys.counts.clamp(min=1)[:, None, None]
            masses.append(mass)
            ratios.append(weights.amax((3, 5)) / mean.where(mean > 0, 1.0))
        mass, ratio = torch.cat(masses, 2), torch.cat(ratios, 2)
        filled = (queries.counts > 0)[:, None, :, None] & (keys.counts > 0)[:, None, None]
        filled = filled.expand_as(mass)
        blocks = filled.sum((2, 3)).clamp(min=1)
        mean = mass.sum((2, 3)) / blocks
        full = (filled & (mass >= _EMPTY * mean[..., None, None])).sum((2, 3)) / blocks
        uneven = ratio.sum((2, 3)) / (ratio > 0).sum((2, 3)).clamp(min=1)
        return mass, filled, full.to(mass.dtype), uneven

    def _kept(self, mass: Tensor, filled: Tensor, ends: Tensor) -> Tensor:
        """(B, H, n, n) bool."""
        n = mass.shape[-1]
        count = filled.sum((2, 3)) * self.share
        quota = (count - 1e-9).ceil().long()[..., None]
        _, order = ranks(mass.masked_fill(~filled, -1.0).flatten(2))
        rank = torch.arange(n * n, device=mass.device)
        kept = torch.zeros_like(order, dtype=torch.bool).scatter(2, order, rank < quota)
        kept = kept.view(mass.shape) | torch.eye(n, dtype=torch.bool, device=mass.device)
        number = torch.arange(n, device=mass.device)
        last = (number == (ends // self.block)[:, None]) & (ends % self.block > 0)[:, None]
        return kept | last[:, None, :, None] | last[:, None, None]


def _checked(grid: tuple[int, ...] | None, length: int) -> tuple[int, ...] | None:
    """The grid; None where there is none, or one of a single axis."""
    if grid is None or len(grid) == 1:
        return None
    if len(grid) > 3 or math.prod(grid) != length:
        raise ValueError(f"a grid of {' x '.join(map(str, grid))} does not hold {length} tokens")
    return grid


def _placed(x: Tensor, order: Tensor) -> Tensor:
    """Tokens (B, H, L, D) in an order (B, H, L)."""
    return x.gather(2, order[..., None].expand(*order.shape, x.shape[-1]))


def _by_maximum(x: Tensor, largest: int) -> Tensor:
    """(B, H, ..) on a grid of ``largest`` steps from zero to the largest of each head."""
    return rounded(x, largest, tuple(range(2, x.ndim)))
