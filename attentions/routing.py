"""Routing Transformer attention: queries and keys meet in the clusters that both are routed to.

Roy, Saffar, Vaswani and Grangier 2020, arXiv 2003.05997, with the authors' code. With q' and k'
the queries and keys after a layer norm without parameters, of length sqrt(D), and centroids mu_c of
each head that both share and that follow them in training (`attentions.shared.centroids`):

    I_c = the w_q queries with the largest q'·mu_c,   J_c = the w_k keys with the largest k'·mu_c
    o_ci = softmax over J_c (tau q'_i·k'_j) v_j
    o_i = mean of o_ci over the clusters c with i in I_c, zeros where there is none

w is ``density`` L for the L valid tokens, and at least the L / C of the paper, with which clusters
hold every token once on the average and leave out a third of them; by default it is twice that. No
gradient goes through the choice; a term of the training loss, ``commitment`` times the mean squared
distance of q' and of k' to their nearest centroids, draws them there.

Causal patterns are adapted: which queries and keys are among the w best hangs on all that come
later. In causal cross attention, where all keys are there, a query is in the one cluster whose
centroid is nearest to it, c(i). In causal self attention keys are too:

    o_i = softmax over J_i (tau q'_i·k'_j) v_j,
    J_i = the last ``window`` keys j <= i with c(j) = c(i), and i itself

Cluster after cluster and in order of places, J_i is one run of keys. In the paper queries and keys
are one projection there, K := Q: with ``shared`` queries are the keys, and c(i) is that of the
token. Without it a token may find no key in its query's cluster, which is why its own is read in
any case. Decoding keeps the last ``window`` keys of each cluster, so its state is as large at any
length.

What else differs from the authors' code: tau is 1 / sqrt(D) as in lucidrains/routing-transformer;
theirs is 1, which at D = 64 lets hardly more than one key through (``tau``). Means are divided by
the number of clusters, theirs by that and 0.01. Counts of centroids begin at 1. Half of their heads
are local: those are `local`, and not here. lucidrains adds a learned key to each cluster, masks a
token's own key where queries are keys, and begins with k-means on the first batch; here none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.block_importance import ranks
from attentions.shared.centroids import Centroids, standardised
from attentions.shared.cluster_runs import Runs, at_places, causal_runs, last_of_clusters, put
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.key_ranges import range_attention, share_of_first
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
        id="routing",
        family=Family.SPARSE,
        title="Routing Transformer attention",
        formula="o_i = mean over clusters c of softmax over keys of c (tau LN(q_i)·LN(k_j)) v_j; "
        "c has the queries and the keys with the largest product with its centroid",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.ADAPTED,
        },
        time="L C D + L^2 D / C; causal L C D + L w D",
        memory="L D + L C",
        paper="Roy et al., Efficient Content-Based Sparse Attention with Routing Transformers",
        year=2020,
        url="https://arxiv.org/abs/2003.05997",
        options=(
            Option("clusters", 16, "C: centroids of a head", positive=True),
            Option("density", 0.125, "share of the tokens in a cluster, at least 1/C; not in "
                   "causal self attention", least=0, most=1),
            Option("window", 64, "keys of its cluster that a token reads in causal self attention",
                   positive=True),
            Option("shared", False, "causal self attention: queries are the keys, as in the paper"),
            Option("tau", 0.0, "factor of products; 0: 1/sqrt(D)", least=0),
            Option("momentum", 0.999, "share of centroids that a training pass keeps", least=0,
                   most=1),
            Option("commitment", 1e-4, "weight of the distance to centroids in the loss", least=0),
        ),
        presets={"paper": {"density": 0.0, "shared": True, "tau": 1.0}},
    )
)  # fmt: skip
class RoutingAttention(PartialReads):
    """Softmax within clusters of queries and keys."""

    def __init__(
        self,
        spec: AttentionSpec,
        clusters: int = 16,
        density: float = 0.125,
        window: int = 64,
        shared: bool = False,
        tau: float = 0.0,
        momentum: float = 0.999,
        commitment: float = 1e-4,
    ) -> None:
        super().__init__(spec)
        self.clusters, self.window, self.share = clusters, window, density
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        self.shared = shared and self.causal
        self.tau, self.commitment = tau, commitment
        self.centroids = Centroids(spec.heads, clusters, spec.head_dim, momentum)
        self._loss: Tensor | None = None

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        own = AttentionContext() if context is None else context
        queries, keys = self._standardised(q, k)
        near_q, near_k = (self.centroids.similarities(x) for x in (queries, keys))
        attend = self._causal if self.causal else self._clustered
        out = attend(queries, keys, v.to(keys.dtype), near_q, near_k, own)
        self._loss = None
        if self.training:
            self._learn(queries, near_q, keys, near_k, own)
        return out.to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Dense softmax under the mask of each cluster, one after the other."""
        own = AttentionContext() if context is None else context
        queries, keys = self._standardised(q, k)
        near_q, near_k = (self.centroids.similarities(x) for x in (queries, keys))
        queries = queries * self._factor(q.shape[-1])
        valid = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
        valid = valid if own.key_mask is None else own.key_mask
        if self.causal:
            i = torch.arange(k.shape[2], device=k.device)[k.shape[2] - q.shape[2] :, None]
            j = torch.arange(k.shape[2], device=k.device)
            same = near_q.argmax(-1)[..., None] == near_k.argmax(-1)[:, :, None]
            same = same & (j <= i) & valid[:, None, None]
            behind = same.flip(-1).cumsum(-1).flip(-1)
            sees = same & (behind <= self.window) | (j == i) & valid[:, None, None]
            return exact_softmax_attention(queries, keys, v, sees)
        total = queries.new_zeros(*queries.shape[:3], v.shape[-1])
        count = torch.zeros_like(queries[..., :1])
        for c in range(self.clusters):
            holds_k = self._best_tokens(near_k[..., c], own.key_mask)
            if self.pattern.causal:
                holds_q = near_q.argmax(-1) == c
            else:
                holds_q = self._best_tokens(near_q[..., c], own.query_mask)
            sees = holds_k[:, :, None] & valid[:, None, None]
            part = exact_softmax_attention(queries, keys, v, sees)
            total = total + part * holds_q[..., None]
            count = count + holds_q[..., None]
        return total / count.clamp(min=1)

    def auxiliary_loss(self) -> Tensor | None:
        """``commitment`` times the distance of queries and of keys to centroids, in training."""
        return self._loss

    @without_autocast
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """In self attention the last keys of each cluster of the prompt, in cross attention the
        best ones of the source; with their values.
        """
        mask = None if context is None else context.key_mask
        length = k.shape[2]
        if not length:  # one that is masked
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
            mask = torch.zeros(k.shape[0], 1, dtype=torch.bool, device=k.device)
        keys = standardised(k)
        near = self.centroids.similarities(keys)
        if self.causal:
            places, counts = last_of_clusters(near.argmax(-1), mask, self.clusters, self.window)
        else:
            places, sizes = self._members(near, mask)
            counts = sizes[:, None, None].expand(-1, k.shape[1], self.clusters)
        kept = {"k": at_places(keys, places), "v": at_places(v, places), "counts": counts}
        return DecodeState(length, kept)

    @without_autocast
    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Put the token into its key's cluster, and read that of its query."""
        tensors = state.tensors
        query, own = standardised(q_t), None
        if k_t is not None and v_t is not None:
            key = standardised(k_t)
            query = key if self.shared else query
            own = self.centroids.similarities(key).argmax(-1)[..., 0]
            put(tensors, own, key, v_t)
            state.length += 1
        chosen = self.centroids.similarities(query).argmax(-1)[..., 0]
        index = chosen[..., None, None, None]
        keys, values = (
            x.gather(2, index.expand(-1, -1, 1, *x.shape[3:]))[:, :, 0]
            for x in (tensors["k"], tensors["v"])
        )
        count = tensors["counts"].gather(2, chosen[..., None])
        sees = (torch.arange(keys.shape[2], device=keys.device) < count)[:, :, None]
        if own is not None and k_t is not None and v_t is not None:
            keys, values = torch.cat([keys, key], 2), torch.cat([values, v_t], 2)
            sees = torch.cat([sees, (own != chosen)[..., None, None]], -1)
        query = query * self._factor(query.shape[-1])
        return exact_softmax_attention(query, keys, values.to(keys.dtype), sees).to(
            tensors["v"].dtype
        ), state

    def state_size(self, length: int) -> int:
        """Keys, values and counts of C clusters; in cross attention clusters hold a share of the
        source.
        """
        width = self.window if self.causal else self._width(length)
        return self.spec.heads * self.clusters * (2 * width * self.spec.head_dim + 1)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`; a key that a query meets in several clusters counts in
        each of them, up to as many as there are keys.
        """
        queries, keys = self._standardised(q, k)
        near_q, near_k = (self.centroids.similarities(x) for x in (queries, keys))
        if self.causal:
            runs = self._runs(near_q, near_k, context)
            read = (runs.last - runs.first).clamp(min=0) + runs.own
        else:
            _, size_k = self._members(near_k, context.key_mask)
            if self.pattern.causal:
                times = torch.ones_like(near_q[..., 0])
            else:
                _, _, times = self._asking(near_q, context.query_mask)
            valid = k.new_full((len(k),), k.shape[2])
            if context.key_mask is not None:
                valid = context.key_mask.sum(-1)
            read = torch.minimum(times * size_k[:, None, None], valid[:, None, None])
        if context.query_mask is not None:
            read = read * context.query_mask[:, None]
        return read.sum(-1).double()

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (D + Dv) for each pair in a cluster, and products with all centroids."""
        rows, width = shape.batch * shape.heads, shape.head_dim + shape.value_dim
        size_k = self._width(shape.length_k)
        if self.causal:
            pairs = float(shape.length_q * min(self.window, shape.length_k / self.clusters / 2 + 1))
        elif self.pattern.causal:
            pairs = float(shape.length_q * size_k)
        else:
            pairs = float(self.clusters * self._width(shape.length_q) * size_k)
        near = (shape.length_q + shape.length_k) * self.clusters * shape.head_dim
        return 2.0 * rows * (pairs * width + near)

    def _standardised(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        keys = standardised(k)
        return (keys[:, :, k.shape[2] - q.shape[2] :] if self.shared else standardised(q)), keys

    def _factor(self, dim: int) -> float:
        """What queries are scaled by beside the 1 / sqrt(D) of the softmax: tau sqrt(D)."""
        return self.tau * math.sqrt(dim) if self.tau else 1.0

    def _width(self, count: int) -> int:
        """Tokens in a cluster, w, for that many valid ones."""
        return max(math.ceil(self.share * count - 1e-9), -(-count // self.clusters))

    def _sizes(self, near: Tensor, mask: Tensor | None) -> Tensor:
        """(B,) w of each row."""
        if mask is None:
            return torch.full((len(near),), self._width(near.shape[2]), device=near.device)
        counts: list[int] = mask.sum(-1).tolist()
        return torch.tensor([self._width(x) for x in counts], device=near.device)

    def _best_tokens(self, near: Tensor, mask: Tensor | None) -> Tensor:
        """(B, H, L) bool: the w tokens with the largest similarity (B, H, L)."""
        sizes = self._sizes(near, mask)[:, None, None]
        if mask is not None:
            near = near.masked_fill(~mask[:, None], -math.inf)
        _, order = ranks(near)
        rank = torch.empty_like(order).scatter_(
            -1, order, torch.arange(near.shape[-1], device=near.device).expand_as(order)
        )
        return rank < sizes

    def _members(self, near: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, H, C, W) the tokens of each cluster, and (B,) how many of them count."""
        sizes = self._sizes(near, mask)
        near = near.mT
        if mask is not None:
            near = near.masked_fill(~mask[:, None, None], -math.inf)
        width = max(1, int(sizes.amax()))
        return ranks(near)[1][..., :width], sizes

    def _asking(self, near: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H, C, W) the queries of each cluster, and whether they count; and (B, H, Lq) in how
        many clusters each is.
        """
        places, sizes = self._members(near, mask)
        rank = torch.arange(places.shape[-1], device=near.device)
        inside = (rank < sizes[:, None, None, None]).expand_as(places)
        times = torch.zeros_like(near[..., 0])
        times.scatter_add_(2, places.flatten(2), inside.flatten(2).to(near.dtype))
        return places, inside, times

    def _clustered(
        self,
        queries: Tensor,
        keys: Tensor,
        v: Tensor,
        near_q: Tensor,
        near_k: Tensor,
        context: AttentionContext,
    ) -> Tensor:
        """Attention of the queries of each cluster to its keys, which stand one cluster behind the
        other.
        """
        places, size = self._members(near_k, context.key_mask)
        width = places.shape[-1]
        begins = torch.arange(self.clusters, device=v.device)[:, None] * width
        columns, values = (at_places(x, places).flatten(2, 3) for x in (keys, v))
        queries = queries * self._factor(queries.shape[-1])
        size = size[:, None, None, None]
        if self.pattern.causal:
            first = near_q.argmax(-1)[..., None] * width
            return range_attention(queries, columns, values, first, first + size)[0][:, :, :, 0]
        asking, inside, times = self._asking(near_q, context.query_mask)
        first = begins.expand_as(asking)
        last = (first + size).where(inside, 0).flatten(2)[..., None]
        rows = at_places(queries, asking).flatten(2, 3)
        means, _ = range_attention(rows, columns, values, first.flatten(2)[..., None], last)
        index = asking.flatten(2)[..., None].expand(-1, -1, -1, v.shape[-1])
        total = means.new_zeros(*queries.shape[:3], v.shape[-1])
        total = total.scatter_add(2, index, means[..., 0, :])
        return total / times.clamp(min=1)[..., None]

    def _causal(
        self,
        queries: Tensor,
        keys: Tensor,
        v: Tensor,
        near_q: Tensor,
        near_k: Tensor,
        context: AttentionContext,
    ) -> Tensor:
        """Attention to a run of the keys that stand cluster after cluster, and to the token."""
        runs = self._runs(near_q, near_k, context)
        columns, values = (at_places(x, runs.order) for x in (keys, v))
        queries = queries * self._factor(queries.shape[-1])
        first, last = runs.first[..., None], runs.last[..., None]
        means, lse = range_attention(queries, columns, values, first, last)
        lag = keys.shape[2] - queries.shape[2]
        score = (queries * keys[:, :, lag:]).sum(-1) * queries.shape[-1] ** -0.5
        share = share_of_first(lse[..., 0], score.masked_fill(~runs.own, -math.inf))
        return torch.lerp(v[:, :, lag:], means[..., 0, :], share[..., None])

    def _runs(self, near_q: Tensor, near_k: Tensor, context: AttentionContext) -> Runs:
        chosen = near_q.argmax(-1), near_k.argmax(-1)
        return causal_runs(*chosen, context.key_mask, self.clusters, self.window)

    def _learn(
        self,
        queries: Tensor,
        near_q: Tensor,
        keys: Tensor,
        near_k: Tensor,
        context: AttentionContext,
    ) -> None:
        """The commitment of this pass, and centroids for the next one."""
        mask = context.query_mask
        if mask is None and not self.pattern.cross and context.key_mask is not None:
            mask = context.key_mask[:, keys.shape[2] - queries.shape[2] :]
        parts = [(keys, near_k.argmax(-1), context.key_mask)]
        if not self.shared:
            parts.append((queries, near_q.argmax(-1), mask))
        distances = [self.centroids.distance(*part) for part in parts]
        self._loss = self.commitment * torch.stack(distances).sum()
        whole = None
        if any(m is not None for _, _, m in parts):
            whole = torch.cat(
                [x.new_ones(len(x), x.shape[2], dtype=torch.bool) if m is None else m
                 for x, _, m in parts], 1
            )  # fmt: skip
        vectors, nearest = torch.cat([p[0] for p in parts], 2), torch.cat([p[1] for p in parts], 2)
        self.centroids.follow(vectors, nearest, whole)
