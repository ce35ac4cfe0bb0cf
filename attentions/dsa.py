"""DeepSeek sparse attention: a light index chooses the keys of each query (DeepSeek-V3.2).

DeepSeek-AI 2025, arXiv 2512.02556. From the layer's input x, an indexer of h
heads of e numbers scores every key s that query t sees, and the k best are read:

    I_ts = sum_j w_tj relu(q^I_tj·k^I_s / sqrt(e)),    q^I, w from x_t,   k^I from x_s
    o_t = softmax_s(q_t·k_s / sqrt(D)) v_s   over S_t, the k keys with the largest I_ts

All heads read the same keys; of equal ones the first are taken. The index costs every pair of
tokens a product of a few numbers, softmax reads k keys. No gradient goes through the choice: the
indexer learns to foretell what the heads attend to, from a loss of its own, in training:

    p_t = mean over heads of the weights on S_t,   loss = mean_t KL(p_t || softmax over S_t of I_t)

where p and the layer's input count as constants. This is the paper's loss of sparse training; its
warm-up, in which the layer is dense and the loss is over all keys, is for continuing a dense model,
and there is none here.

What the released model has besides: rotary positions, a normalisation and 8-bit numbers in the
indexer, and latent keys that all heads share. The paper reads 2,048 keys of sequences of 128,000
tokens, with 64 index heads of 128; the defaults suit hundreds to thousands of tokens, and keep to
what a mechanism may learn.

The authors report causal self attention alone. The formula has no places, so that it is the same
on other patterns, over all keys that a query sees.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.block_tiles import lists_of
from attentions.shared.cache import KeyValueCache
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.gathered import gathered
from attentions.shared.layer_inputs import key_input, query_input
from attentions.shared.masks import visible
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

_NUMBERS = 1 << 20
"""Scores and gathered numbers that are alive at a time"""


@register_attention(
    AttentionInfo(
        id="dsa",
        family=Family.SPARSE,
        title="DeepSeek sparse attention (DSA)",
        formula="o_t = softmax_s(q_t·k_s / sqrt(D)) v_s over the k keys with the largest "
        "sum_j w_tj relu(q^I_tj·k^I_s)",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L^2 h e + L k D",
        memory="L k + L D",
        paper="DeepSeek-AI, DeepSeek-V3.2: Pushing the Frontier of Open Large Language Models",
        year=2025,
        url="https://arxiv.org/abs/2512.02556",
        options=(
            Option("topk", 64, "k: keys that a query reads", positive=True),
            Option("index_heads", 2, "h: heads of the indexer", positive=True),
            Option("index_dim", 16, "e: numbers of an index key", positive=True),
            Option("index_loss", 1.0, "weight of the indexer's loss", least=0),
        ),
        presets={"paper": {"topk": 2048, "index_heads": 64, "index_dim": 128}},
    )
)
class DeepSeekSparseAttention(PartialReads, KeyValueCache):
    """Softmax over the keys that an indexer chooses; needs the layer's inputs in its context."""

    def __init__(
        self,
        spec: AttentionSpec,
        topk: int = 64,
        index_heads: int = 2,
        index_dim: int = 16,
        index_loss: float = 1.0,
    ) -> None:
        super().__init__(spec)
        self.topk, self.heads, self.loss_weight = topk, index_heads, index_loss
        width = spec.embed_dim or spec.heads * spec.head_dim
        self.index_q = nn.Linear(width, index_heads * index_dim, bias=False)
        self.index_k = nn.Linear(width, index_dim, bias=False)
        self.index_w = nn.Linear(width, index_heads, bias=False)
        self._loss: Tensor | None = None

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least.

        Raises:
            ValueError: the context has no ``query_input`` or ``key_input`` for the indexer.
        """
        queries, keys = self._index_queries(q, context), self._index_keys(k, context)
        mask = None if context is None else context.key_mask
        out, losses = self._attend(q, k, v, queries, keys, mask)
        self._loss = None
        if self.training:
            seen = visible(self.pattern, q.shape[2], k.shape[2], context, q.device)
            counts = torch.ones_like(losses)
            if seen is not None:
                counts = counts * seen.any(-1).view(-1, *seen.shape[-2:-1])
            if context is not None and context.query_mask is not None:
                counts = counts * context.query_mask
            self._loss = self.loss_weight * (losses * counts).sum() / counts.sum().clamp(min=1)
        return out

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Index scores of all pairs, a sort of them, and dense softmax under the mask."""
        (queries, weights), keys = self._index_queries(q, context), self._index_keys(k, context)
        scores = (queries @ keys[:, None].mT * keys.shape[-1] ** -0.5).relu()
        scores = (weights[..., None] * scores).sum(1)
        mask = visible(self.pattern, q.shape[2], k.shape[2], context, q.device)
        sees = torch.ones_like(scores, dtype=torch.bool)
        if mask is not None:
            sees = sees & mask[:, 0] if mask.ndim == 4 else sees & mask
        ranked = scores.masked_fill(~sees, -math.inf).sort(dim=-1, descending=True, stable=True)
        best = ranked.indices.argsort(-1) < self.topk
        return exact_softmax_attention(q, k, v, (best & sees)[:, None])

    def auxiliary_loss(self) -> Tensor | None:
        """``index_loss`` times the divergence of the indexer's softmax from the heads' weights."""
        return self._loss

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keys, values and ``index`` (B, L, e), the index keys."""
        state = super().prefill(k, v, context)
        state.tensors["index"] = self._index_keys(k, context)
        return state

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Append the token's key, value and index key, choose and attend."""
        tensors = state.tensors
        if k_t is not None and v_t is not None:
            for name, new in (("k", k_t), ("v", v_t), ("index", self._index_keys(k_t, context))):
                tensors[name] = torch.cat([tensors[name], new], -2)
            if "key_mask" in tensors:
                tensors["key_mask"] = F.pad(tensors["key_mask"], (0, 1), value=True)
            state.length += 1
        queries, mask = self._index_queries(q_t, context), tensors.get("key_mask")
        out, _ = self._attend(q_t, tensors["k"], tensors["v"], queries, tensors["index"], mask)
        return out, state

    def state_size(self, length: int) -> int:
        """L (2 H D + e) numbers."""
        return super().state_size(length) + length * self.index_k.out_features

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`: k keys, or as many as there are."""
        valid = torch.ones(q.shape[0], k.shape[2], dtype=torch.bool, device=q.device)
        valid = valid if context.key_mask is None else context.key_mask
        seen = valid.sum(-1, keepdim=True).expand(-1, q.shape[2])
        if self.pattern is Pattern.CAUSAL_SELF:
            seen = valid.cumsum(-1)[:, k.shape[2] - q.shape[2] :]
        read = seen.clamp(max=self.topk)
        if context.query_mask is not None:
            read = read * context.query_mask
        return read.sum(-1, keepdim=True).double().expand(-1, q.shape[1])

    def flops(self, shape: AttentionShape) -> float:
        """The index of every pair that is seen, softmax over k keys, and projections."""
        length, batch = shape.length_k, shape.batch
        pairs, read = float(shape.length_q * length), shape.length_q * min(length, self.topk)
        if self.pattern is Pattern.CAUSAL_SELF:
            places = range(length - shape.length_q, length)
            pairs = float(sum(place + 1 for place in places))
            read = sum(min(place + 1, self.topk) for place in places)
        inner = self.index_q.out_features
        total = float(batch * shape.heads * read * (shape.head_dim + shape.value_dim))
        total += batch * pairs * (inner + self.heads)
        total += batch * shape.length_q * self.index_q.in_features * (inner + self.heads)
        total += batch * length * self.index_k.in_features * self.index_k.out_features
        return 2.0 * total

    def _index_queries(self, q: Tensor, context: AttentionContext | None) -> tuple[Tensor, Tensor]:
        """(B, h, Lq, e) and the weights (B, h, Lq), in float32 at least."""
        x = query_input(context, "dsa", "index").detach().to(self.index_q.weight.dtype)
        queries = self.index_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        wide = torch.promote_types(q.dtype, torch.float32)
        return queries.to(wide), self.index_w(x).mT.to(wide)

    def _index_keys(self, k: Tensor, context: AttentionContext | None) -> Tensor:
        """(B, Lk, e) in float32 at least."""
        y = key_input(context, "dsa", "index").detach()
        keys: Tensor = self.index_k(y.to(self.index_k.weight.dtype))
        return keys.to(torch.promote_types(k.dtype, torch.float32))

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        index_q: tuple[Tensor, Tensor],
        index_k: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs, and the divergence (B, Lq) of each query, zeros unless in training."""
        dtype, length, lag = v.dtype, k.shape[2], k.shape[2] - q.shape[2]
        wide = torch.promote_types(q.dtype, torch.float32)
        q, k, v = (x.to(wide).contiguous() for x in (q, k, v))
        queries, weights = index_q
        gathered_numbers = q.shape[1] * min(self.topk, length) * (q.shape[-1] + v.shape[-1])
        room = q.shape[0] * (gathered_numbers + self.heads * length)
        count, parts = max(1, _NUMBERS // max(1, room)), []
        for first in range(0, max(1, q.shape[2]), count):
            rows = slice(first, first + count)
            own = queries[:, :, rows], weights[:, :, rows]
            last = lag + min(first + count, q.shape[2])
            chosen = self._chosen(*own, index_k, mask, last)
            parts.append(recomputed(self._gather, q[:, :, rows], k, v, *own, index_k, chosen))
        out = torch.cat([part[0] for part in parts], 2)
        return out.to(dtype), torch.cat([part[1] for part in parts], 1)

    @torch.no_grad()
    def _chosen(
        self, queries: Tensor, weights: Tensor, keys: Tensor, mask: Tensor | None, last: int
    ) -> Tensor:
        """(B, n, at most k) the keys of n queries, the last of which is the token before ``last``
        in causal self attention; -1 first where there are fewer.
        """
        causal = self.pattern is Pattern.CAUSAL_SELF
        keys = keys[:, :last] if causal else keys
        scores = _index(queries @ keys[:, None].mT, weights, keys.shape[-1])
        seen = None if mask is None else AttentionContext(key_mask=mask[:, : keys.shape[1]])
        sees = visible(self.pattern, queries.shape[2], keys.shape[1], seen, keys.device)
        if sees is not None:
            scores = scores.masked_fill(~(sees[:, 0] if sees.ndim == 4 else sees), -math.inf)
        count = min(self.topk, keys.shape[1])
        if not count:
            return lists_of(torch.zeros_like(scores, dtype=torch.bool))
        least = scores.topk(count, sorted=False).values.amin(-1, keepdim=True)
        above, equal = scores > least, (scores == least) & (scores > -math.inf)
        left = count - above.sum(-1, keepdim=True)
        return lists_of(above | equal & (equal.cumsum(-1) <= left))

    def _gather(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        queries: Tensor,
        weights: Tensor,
        index_k: Tensor,
        chosen: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Softmax of some queries over the keys that are chosen, and how far the indexer is off."""
        absent, places = chosen < 0, chosen.clamp(min=0)
        read = partial(gathered, index=places)
        scores = (read(k) @ q[..., None])[..., 0] * q.shape[-1] ** -0.5
        hidden = absent[:, None]
        shares = scores.masked_fill(hidden, -math.inf).softmax(-1).masked_fill(hidden, 0.0)
        out = (shares[..., None, :] @ read(v))[..., 0, :]
        if not self.training:
            return out, out.new_zeros(q.shape[0], q.shape[2])
        target = shares.detach().mean(1)
        products = queries[..., None, :] @ read(index_k[:, None]).mT
        found = _index(products[..., 0, :], weights, index_k.shape[-1])
        # In a row that reads nothing all terms are zero.
        found = found.masked_fill(absent & ~absent.all(-1, keepdim=True), -math.inf)
        terms = torch.xlogy(target, target) - target * found.log_softmax(-1).masked_fill(absent, 0)
        return out, terms.sum(-1)


def _index(products: Tensor, weights: Tensor, dim: int) -> Tensor:
    """(B, n, x) index scores of products (B, h, n, x) and weights (B, h, n)."""
    return (weights[..., None] * (products * dim**-0.5).relu()).sum(1)
