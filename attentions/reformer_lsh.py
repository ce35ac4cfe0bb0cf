"""Reformer's attention: tokens meet where hashes of their directions agree (Kitaev et al. 2020,
arXiv 2001.04451).

    o_i = sum_(j in P_i) softmax_j(x_i·k_j / sqrt(D)) v_j,   k_j = x_j / |x_j|
    P_i = union over rounds r of P_i^r,   h_r(x) = argmax([x R_r, -x R_r])

Queries and keys are one set of vectors x. R_r is a random matrix (D, b/2) of a head and round, so
that vectors of nearly one direction mostly have one of the b hashes. A round sorts tokens by hash,
and by place where hashes agree, cuts them into chunks of c, and P_i^r holds the tokens of the same
hash in the chunk of i and the one before it. A token is in its own P_i only where nothing else is.

Rounds are done one after the other, and again in the backward pass, on tiles of c tokens by 2 c.
Each gives a softmax of its own, in which a score is less ln N_ij, for the N_ij rounds that hold the
pair, and the masses of rounds say how they are mixed: together it is the softmax over P_i.

What differs, so that both patterns are adapted:

* x is the backbone's keys; its queries are not read, and their projection stands idle. Of the two
  it is the keys that a prompt brings;
* R is drawn once, when the layer is built, where the authors draw anew for every batch;
* b and c are options; theirs go with the length, b = 2 L / c;
* the first chunk has none before it, where theirs is given the last one, of which hashes rarely
  agree with its own;
* causally, a chunk begins where a count of sorted tokens says it, and later tokens are counted: the
  authors' masks keep what is later out of the sum, but not out of the choice. Here P_i^r holds the
  last c tokens before i that have its hash, which hangs on nothing later and lies in the same tile.

A masked token has no hash and is nowhere. Nothing has a gradient through the choice. A step hashes
what is cached and reads its own P_i alone.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.density import PartialReads
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.recompute import recomputed
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

_EPS = 1e-6
"""Added to the mean square of a vector that is brought to length one"""
_ROWS = 256
"""Queries whose reads are counted at a time"""


@register_attention(
    AttentionInfo(
        id="reformer-lsh",
        family=Family.SPARSE,
        title="Reformer attention (LSH)",
        formula="o_i = sum_(j in P_i) softmax_j(x_i·x_j / (|x_j| sqrt(D))) v_j, P_i the tokens "
        "near i among those with its hash argmax([x R, -x R])",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.CAUSAL_SELF: Grade.ADAPTED,
        },
        absent={
            Pattern.NONCAUSAL_CROSS: "queries and keys are one set of vectors, hashed together",
            Pattern.CAUSAL_CROSS: "queries and keys are one set of vectors, hashed together",
        },
        time="L r (b + c) D",
        memory="L (D + c)",
        paper="Kitaev et al., Reformer: The Efficient Transformer",
        year=2020,
        url="https://arxiv.org/abs/2001.04451",
        options=(
            Option("rounds", 4, "r: hashes of a token", positive=True),
            Option("buckets", 16, "b: values of a hash, an even number", least=2),
            Option("chunk", 32, "c: sorted tokens that are done together", positive=True),
        ),
    )
)
class ReformerLSH(KeyValueCache, PartialReads):
    """Softmax among tokens whose keys have a hash in common."""

    rotations: Tensor
    """(H, r, D, b / 2)"""

    def __init__(
        self, spec: AttentionSpec, rounds: int = 4, buckets: int = 16, chunk: int = 32
    ) -> None:
        super().__init__(spec)
        if buckets % 2:
            raise ValueError(f"buckets come in opposite pairs: an even number, not {buckets}")
        self.rounds, self.buckets, self.chunk = rounds, buckets, chunk
        self.causal = spec.pattern is Pattern.CAUSAL_SELF
        shape = (spec.heads, rounds, spec.head_dim, buckets // 2)
        self.register_buffer("rotations", torch.randn(shape))

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least, without q.

        With fewer queries than keys all pairs of a query are looked at.
        """
        if q.shape[2] < k.shape[2]:
            return self._dense(q.shape[2], k, v, context)
        wide = torch.promote_types(v.dtype, torch.float32)
        vectors, values = k.to(wide), v.to(wide)
        hashes, ranks, order = self._hashed(vectors, context)
        means, masses = [], []
        for one in range(self.rounds):
            tiles = partial(
                self._round, one=one, hashes=hashes, ranks=ranks, order=order[:, :, one]
            )
            mean, mass = recomputed(tiles, vectors, values)
            means.append(mean)
            masses.append(mass)
        mass = torch.stack(masses)
        alone = (mass == -torch.inf).all(0)
        shares = mass.masked_fill(alone, 0.0).softmax(0)[..., None]
        out = (shares * torch.stack(means)).sum(0)
        # Values of masked tokens are zeros.
        return torch.where(alone[..., None], values, out).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Softmax under the mask of all pairs that a round holds."""
        return self._dense(q.shape[2], k, v, context)

    def columns_read(self, q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
        """See `PartialReads.columns_read`; a pair counts once, however many rounds hold it."""
        wide = torch.promote_types(k.dtype, torch.float32)
        hashes, ranks, _ = self._hashed(k.to(wide), context)
        length = k.shape[2]
        total = torch.zeros(k.shape[:2], dtype=torch.float64, device=k.device)
        for first in range(length - q.shape[2], length, _ROWS):
            rows = slice(first, min(first + _ROWS, length))
            read = self._sees(hashes, ranks, rows).sum(-1)
            if context.query_mask is not None:
                own = slice(rows.start - length + q.shape[2], rows.stop - length + q.shape[2])
                read = read * context.query_mask[:, None, own]
            total += read.sum(-1)
        return total

    def flops(self, shape: AttentionShape) -> float:
        """2 B H r L (2 c (D + Dv) + D b / 2)."""
        tokens = shape.batch * shape.heads * self.rounds * shape.length_k
        width = 2 * min(self.chunk, shape.length_k)
        pairs = width * (shape.head_dim + shape.value_dim)
        return 2 * tokens * (pairs + shape.head_dim * self.buckets / 2)

    @torch.no_grad()
    def _hashed(self, x: Tensor, context: AttentionContext | None) -> tuple[Tensor, Tensor, Tensor]:
        """Hashes of tokens, b where there is none, their ranks among the sorted ones, and the
        places of these in order; (B, H, r, L) each.
        """
        turned = torch.einsum("bhld,hrdn->bhrln", x, self.rotations.to(x.dtype))
        hashes = torch.cat([turned, -turned], dim=-1).argmax(-1)
        if context is not None and context.key_mask is not None:
            hashes = hashes.masked_fill(~context.key_mask[:, None, None], self.buckets)
        order = hashes.argsort(dim=-1, stable=True)
        places = torch.arange(x.shape[2], device=x.device).expand_as(order)
        return hashes, torch.empty_like(order).scatter_(-1, order, places), order

    def _holds(self, hashes: Tensor, other: Tensor, ranks: Tensor, other_ranks: Tensor) -> Tensor:
        """Whether a round holds pairs of a token and another: (..., m, n) bool, for hashes and
        ranks (..., m) of the first and (..., n) of the second.
        """
        same = (hashes[..., :, None] == other[..., None, :]) & (other < self.buckets)[..., None, :]
        ranks, other_ranks = ranks[..., :, None], other_ranks[..., None, :]
        if self.causal:
            behind = ranks - other_ranks
            return same & (behind > 0) & (behind <= self.chunk)
        behind = ranks // self.chunk - other_ranks // self.chunk
        return same & (behind >= 0) & (behind <= 1) & (ranks != other_ranks)

    def _sees(self, hashes: Tensor, ranks: Tensor, rows: slice) -> Tensor:
        """(B, H, n, L) bool, True where a token of the rows reads another, or itself alone."""
        sees = torch.zeros(
            *hashes.shape[:2], rows.stop - rows.start, hashes.shape[-1],
            dtype=torch.bool, device=hashes.device,
        )  # fmt: skip
        for one in range(self.rounds):
            own, place = hashes[:, :, one], ranks[:, :, one]
            sees |= self._holds(own[..., rows], own, place[..., rows], place)
        places = torch.arange(hashes.shape[-1], device=hashes.device)
        itself = (places[rows, None] == places) & (hashes[:, :, 0] < self.buckets)[:, :, None]
        return sees | (itself & ~sees.any(-1, keepdim=True))

    @without_autocast
    def _dense(
        self, length_q: int, k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> Tensor:
        """Outputs of the last tokens, by the matrix of their scores."""
        vectors = k.to(torch.promote_types(k.dtype, torch.float32))
        hashes, ranks, _ = self._hashed(vectors, context)
        rows = slice(k.shape[2] - length_q, k.shape[2])
        sees = self._sees(hashes, ranks, rows)
        values = v.to(torch.promote_types(v.dtype, torch.float32))
        return exact_softmax_attention(vectors[:, :, rows], _unit(vectors), values, sees).to(
            v.dtype
        )

    def _round(
        self, x: Tensor, v: Tensor, one: int, hashes: Tensor, ranks: Tensor, order: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means (B, H, L, Dv) and log masses (B, H, L) of what round ``one`` holds, which sorts by
        ``order`` (B, H, L).
        """
        length = x.shape[2]
        size = min(self.chunk, length)
        padding = -length % size

        def tiles(y: Tensor, fill: float = 0.0) -> Tensor:
            """(B, H, chunks, c, ...) of tokens (B, H, L, ...), in order."""
            index = order.view(*order.shape, *(1,) * (y.ndim - 3)).expand_as(y)
            pad = (0, 0) * (y.ndim - 3) + (0, padding)
            return F.pad(y.gather(2, index), pad, value=fill).unflatten(2, (-1, size))

        def with_last(y: Tensor, fill: float = 0.0) -> Tensor:
            """(B, H, chunks, 2 c, ...) of tiles, behind the ones before them."""
            before = torch.cat([torch.full_like(y[:, :, :1], fill), y[:, :, :-1]], dim=2)
            return torch.cat([before, y], dim=3)

        own = tiles(x)
        scores = own @ with_last(tiles(_unit(x))).mT * x.shape[-1] ** -0.5
        rounds = torch.zeros_like(scores, dtype=torch.int32)
        mine = torch.zeros_like(scores, dtype=torch.bool)
        for each in range(self.rounds):
            hashed = tiles(hashes[:, :, each], self.buckets)
            ranked = tiles(ranks[:, :, each], -1)
            held = self._holds(hashed, with_last(hashed, self.buckets), ranked, with_last(ranked))
            rounds += held
            mine = held if each == one else mine
        scores = (scores - rounds.clamp(min=1).to(x.dtype).log()).masked_fill(~mine, -torch.inf)
        empty = ~mine.any(-1, keepdim=True)
        mass = scores.masked_fill(empty, 0.0).logsumexp(-1, keepdim=True)
        weights = (scores - mass).exp()
        mean = weights @ with_last(tiles(v))
        index = ranks[:, :, one]
        mass = mass.masked_fill(empty, -torch.inf).flatten(2)[..., :length]
        mean = mean.flatten(2, 3)[:, :, :length]
        return mean.gather(2, index[..., None].expand_as(mean)), mass.gather(2, index)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length one."""
    return x * (x.square().mean(-1, keepdim=True) + _EPS).rsqrt() * x.shape[-1] ** -0.5
