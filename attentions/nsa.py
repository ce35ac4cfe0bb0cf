"""Native sparse attention: compressed keys, chosen blocks and a window, under gates (NSA).

Yuan et al. 2025, arXiv 2502.11089. Three branches of softmax attention:

    o_i = g^c_i o^c_i + g^s_i o^s_i + g^w_i o^w_i,   g_i = sigmoid(W x_i + b)

    compressed  o^c reads k~_c = phi(k of the l tokens from d c on), and v~_c likewise, of every run
                c that ended before i or at it:  p_ic = softmax_c(q_i·k~_c / sqrt(D))
    selected    o^s reads the n blocks of l' tokens with the largest
                P_ij = sum_c (strides of d that run c and block j have in common) p_ic
    window      o^w reads the last w keys

where x_i is the layer's input at the query, and each head has three gates. Among the n blocks are
the first one, the query's own and the one before it; a block that no run overlaps has P = 0, and of
equal blocks the first is taken. Each query chooses by itself; no gradient goes through the choice.

phi is the mean (``mean``, as in flash-linear-attention), or an MLP of the run's tokens, each with
a vector of its place added (``mlp``, the paper's), of one hidden layer as wide as a head, one for
keys and one for values, the same for all heads. It is more than mechanisms may learn here in a
small model, so that the mean is the default.

What the paper's has and a slot has not: keys and values of their own for each branch, and several
queries that share a key and, by the sum of their P, a choice. Here all branches read the layer's
keys, and each head chooses for itself: every pattern is graded adapted. The paper's formula counts
runs from the block's place backwards (p at l'/d j - m - n); here it is the overlap that is summed,
for which runs lie on both sides of it.

In noncausal self attention all runs are read, the block behind the query's own is among the n too,
and the window is w keys on each side. In cross attention queries stand at the last key of the
source, as if they were the next tokens: that is where the window and the blocks near them are.

Runs and blocks are cut at places, those of the context or else in the sequence. A masked key is in
no mean, and in an MLP it is zero; a run or a block without valid keys is not there, nor is a run
that the last valid key does not fill. The defaults suit sequences of hundreds to thousands of
tokens; the paper's l = 32, d = 16, l' = 64, n = 16 and w = 512 are for 8,192 and more.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.block_choice import ranked, rows_at_a_time
from attentions.shared.cache import KeyValueCache
from attentions.shared.compressed_keys import Runs, filled_blocks
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax, exact_softmax_attention
from attentions.shared.key_ranges import keys_in_runs, range_attention, union_of_runs
from attentions.shared.layer_inputs import query_input
from attentions.shared.places import query_places
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.shared.recompute import recomputed
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
        id="nsa",
        family=Family.SPARSE,
        title="Native sparse attention (NSA)",
        formula="o_i = g^c_i softmax over compressed keys + g^s_i softmax over the n best blocks "
        "+ g^w_i softmax over a window, g_i = sigmoid(W x_i + b)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L^2 D / d + L (n l + w) D",
        memory="L n D",
        paper="Yuan et al., Native Sparse Attention: Hardware-Aligned and Natively Trainable "
        "Sparse Attention",
        year=2025,
        url="https://arxiv.org/abs/2502.11089",
        options=(
            Option("run", 16, "l: tokens that a compressed key stands for", positive=True),
            Option("stride", 8, "d: tokens from one run to the next", positive=True),
            Option("block", 32, "l': tokens in a block that is chosen", positive=True),
            Option("blocks", 6, "n: blocks that a query reads", positive=True),
            Option("window", 64, "w: keys up to the query's own, or on each side of it where "
                   "noncausal", positive=True),
            Option("compression", "mean", "what makes a key of a run", choices=("mean", "mlp")),
        ),
        presets={
            "paper": {"run": 32, "stride": 16, "block": 64, "blocks": 16, "window": 512,
                      "compression": "mlp"},
        },
    )
)  # fmt: skip
class NativeSparseAttention(PartialReads, KeyValueCache):
    """Three branches of softmax attention; needs the queries' layer input in its context."""

    def __init__(
        self,
        spec: AttentionSpec,
        run: int = 16,
        stride: int = 8,
        block: int = 32,
        blocks: int = 6,
        window: int = 64,
        compression: str = "mean",
    ) -> None:
        super().__init__(spec)
        self.cut, self.blocks, self.window = Runs(run, stride, block), blocks, window
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        self.ahead = window if spec.pattern is Pattern.NONCAUSAL_SELF else 0
        self.before = window if self.ahead else window - 1
        self.gates = nn.Linear(spec.embed_dim or spec.heads * spec.head_dim, 3 * spec.heads)
        widths = (spec.head_dim, spec.value_dim) if compression == "mlp" else ()
        self.compress = nn.ModuleList(RunNetwork(run, width) for width in widths)

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            ValueError: the context has no ``query_input`` to take the gates from.
        """
        own = AttentionContext() if context is None else context
        gates, mask = self._gates(context), own.key_mask
        keys, values, coarse, blocks = self._compressed(q, k, v, mask)
        first, last = self._ranges(blocks, q, k, mask)
        out, lse = range_attention(q, keys, values, first, last, mask)
        selected = union_of_runs(out[..., :-1, :], lse[..., :-1])
        branches = torch.stack([coarse, selected, out[..., -1, :]], -1)
        return (branches @ gates.to(branches.dtype)[..., None])[..., 0].to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Each branch as dense softmax under its mask; blocks by a sort of sums of weights."""
        length, cut = k.shape[2], self.cut
        valid = torch.ones(q.shape[0], length, dtype=torch.bool, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask
        j = torch.arange(length, device=q.device)
        place = torch.arange(length - q.shape[2], length, device=q.device)[None, :, None]
        if self.pattern.cross:
            place = torch.where(valid, j, -1).amax(-1)[:, None, None].expand(-1, q.shape[2], -1)
        seen = valid[:, None] & (j <= place) if self.causal else valid[:, None].expand(
            -1, q.shape[2], -1
        )  # fmt: skip
        ends = cut.ends(length, q.device)
        coarse_k, coarse_v = self._compress(k, v, valid)
        sees = cut.valid(valid, length, q.device).any(-1)[:, None].expand(-1, q.shape[2], -1)
        last = place if self.causal else torch.where(valid, j, -1).amax(-1)[:, None, None]
        sees = sees & (ends <= last)
        weights = exact_softmax(q, coarse_k, sees[:, None])
        coarse = weights @ coarse_v
        scores, allowed = [], []
        starts = range(0, length, cut.block)
        some = torch.stack([valid[:, s : s + cut.block].any(-1) for s in starts], -1)
        for b, start in enumerate(starts):
            pieces = ends[:, None] - cut.size + 1 + torch.arange(0, cut.size, cut.stride).to(ends)
            common = ((pieces >= start) & (pieces < start + cut.block)).sum(-1)
            score = (weights.detach() * common).sum(-1)
            own = place[..., 0] // cut.block
            kept = (own == b) | (own == b + 1) | (own + 1 == b) & (self.ahead > 0)
            kept = kept | (some.int().argmax(-1, keepdim=True) == b)
            scores.append(score.masked_fill(kept[:, None], math.inf))
            may = seen[..., start : start + cut.block].any(-1)
            allowed.append(may[:, None].expand_as(score))
        may = torch.stack(allowed, -1)
        total = torch.stack(scores, -1).masked_fill(~may, -math.inf)
        rank = total.sort(dim=-1, descending=True, stable=True).indices.argsort(-1)
        chosen = ((rank < self.blocks) & may).repeat_interleave(cut.block, -1)[..., :length]
        selected = exact_softmax_attention(q, k, v, chosen & seen[:, None])
        near = (j >= place - self.before) & (j <= place + self.ahead)
        window = exact_softmax_attention(q, k, v, (near & seen)[:, None])
        gates = self._gates(context).to(q.dtype)
        branches = torch.stack([coarse, selected, window], -2)
        return (gates[..., None] * branches).sum(-2)

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keep the keys, values and key mask: any block may be chosen."""
        mask = None if context is None else context.key_mask
        return super().prefill(k, v, AttentionContext(key_mask=mask))

    @torch.no_grad()
    def density(self, q: Tensor, k: Tensor, context: AttentionContext | None = None) -> Tensor:
        """(B, H); see `cab.density`. A key that two branches read counts once. Compressed keys
        count too: 1 where with them there is no less to read than there are pairs.
        """
        return super().density(q, k, context).clamp(max=1.0)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`."""
        mask, length = context.key_mask, k.shape[2]
        *_, blocks = self._compressed(q, k, k.new_zeros(*k.shape[:3], self.spec.value_dim), mask)
        runs = self._ranges(blocks, q, k, mask)
        there = self.cut.there(mask, length, q.device).expand(len(q), -1).double()
        read = there.sum(-1, keepdim=True).expand(-1, q.shape[2])
        if self.causal:
            ended = F.pad(there.cumsum(-1), (1, 0))
            place = torch.arange(length - q.shape[2], length, device=q.device)
            count = (place + 1 - self.cut.size) // self.cut.stride + 1
            read = ended[:, count.clamp(min=0)]
        if context.query_mask is not None:
            read = read * context.query_mask
        return keys_in_runs(*runs, length, context, q) + read.sum(-1)[:, None]

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair that a branch reads, the gates, and the MLPs."""
        length, cut = shape.length_k, self.cut
        rows, pairs = shape.batch * shape.heads, 0.0
        for place in range(length - shape.length_q, length):
            seen = place + 1 if self.causal else length
            chosen = min(seen, self.blocks * cut.block)
            pairs += cut.count(seen) + chosen + min(seen, self.before + 1 + self.ahead)
        total = rows * pairs * (shape.head_dim + shape.value_dim)
        total += shape.batch * shape.length_q * self.gates.in_features * self.gates.out_features
        if self.compress:
            widths = shape.head_dim**2 + shape.value_dim**2
            total += rows * cut.count(length) * (cut.size + 1) * widths
        return 2.0 * total

    def _gates(self, context: AttentionContext | None) -> Tensor:
        """(B, H, Lq, 3) of the compressed keys, the blocks and the window."""
        x = query_input(context, "nsa", "gates")
        gates = self.gates(x.to(self.gates.weight.dtype)).sigmoid()
        return gates.unflatten(-1, (self.spec.heads, 3)).transpose(1, 2)

    def _compress(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, H, C, D) and (B, H, C, Dv)."""
        valid = self.cut.valid(mask, k.shape[2], k.device)
        if not self.compress:
            return self.cut.means(k, valid), self.cut.means(v, valid)
        key, value = (
            network(self.cut.of(x), valid) for network, x in zip(self.compress, (k, v), strict=True)
        )
        return key, value

    def _compressed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and values in float32 at least, what the branch of compressed ones gives (B, H, Lq,
        Dv), and the blocks that queries choose by them (B, H, Lq, n).
        """
        wide = torch.promote_types(q.dtype, torch.float32)
        k, v = k.to(wide), v.to(wide)
        length = k.shape[2]
        coarse_k, coarse_v = self._compress(k, v, mask)
        some = self.cut.there(mask, length, q.device)[:, None, None]
        filled = filled_blocks(mask, length, self.cut.block, q.device)[:, None, None]
        place = query_places(q.shape[2], length, self.pattern.cross, mask, q.device)[:, None]
        parts = []
        for rows in rows_at_a_time(q, coarse_k.shape[2] + filled.shape[-1]):
            attend = partial(self._coarse, place=place[..., rows, None], some=some, filled=filled)
            parts.append(recomputed(attend, q[:, :, rows].to(wide), coarse_k, coarse_v))
        coarse, blocks = (torch.cat(x, 2) for x in zip(*parts, strict=True))
        return k, v, coarse, blocks

    def _coarse(
        self, q: Tensor, k: Tensor, v: Tensor, place: Tensor, some: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of some queries at their places (B or 1, 1, n, 1), over compressed keys."""
        if self.causal:
            ends = torch.arange(k.shape[2], device=k.device) * self.cut.stride + self.cut.size - 1
            some = some & (ends <= place)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~some, -math.inf)
        out = scores.softmax(-1).masked_fill(~some, 0.0) @ v
        with torch.no_grad():
            # Of a sum of weights its logarithm, in which small ones do not vanish; in float64, as a
            # run that lies in two blocks and outweighs all others leaves them almost equal.
            by_block = self.cut.by_block(scores, filled.shape[-1]).double()
            common = torch.tensor(self.cut.overlaps(), device=q.device, dtype=torch.float64)
            total = (by_block + common.log()).logsumexp(-1)
            total = total.clamp(min=torch.finfo(total.dtype).min)
            number, own = torch.arange(filled.shape[-1], device=q.device), place // self.cut.block
            kept = (number == own) | (number == own - 1)
            kept = kept | (number == filled.int().argmax(-1, keepdim=True))
            if self.ahead:
                kept = kept | (number == own + 1)
            allowed = filled & (number * self.cut.block <= place) if self.causal else filled
            total = total.masked_fill(kept, math.inf).masked_fill(~allowed, -math.inf)
            return out, ranked(total, min(self.blocks, filled.shape[-1]))

    @torch.no_grad()
    def _ranges(
        self, blocks: Tensor, q: Tensor, k: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(B, H, Lq, n + 1) the runs of keys that are read: blocks, and the window last."""
        length = k.shape[2]
        place = query_places(q.shape[2], length, self.pattern.cross, mask, q.device)
        place = place[:, None, :, None]
        limit = place + 1 if self.causal else torch.full_like(place, length)
        first = blocks.clamp(min=0) * self.cut.block
        last = torch.minimum(first + self.cut.block, limit).masked_fill(blocks < 0, 0)
        begin, end = (place - self.before).clamp(min=0), (place + self.ahead + 1).clamp(max=length)
        window = (x.expand(*q.shape[:3], 1) for x in (begin, end))
        pairs = zip((first, last), window, strict=True)
        starts, stops = (torch.cat(pair, -1) for pair in pairs)
        return starts, stops


class RunNetwork(nn.Module):
    """MLP from the l tokens of a run, with places, to one."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(size, width))
        self.inner, self.outer = nn.Linear(size * width, width), nn.Linear(width, width)

    def forward(self, runs: Tensor, valid: Tensor) -> Tensor:
        """(B, H, C, D) of runs (B, H, C, l, D), of which tokens (B or 1, C, l) are valid."""
        x = runs + self.places.to(runs.dtype)
        x = x.masked_fill(~valid[:, None, ..., None], 0.0).flatten(3)
        for layer in (self.inner, self.outer):
            weight, bias = layer.weight.to(x.dtype), layer.bias.to(x.dtype)
            x = F.linear(F.gelu(x) if layer is self.outer else x, weight, bias)
        return x
