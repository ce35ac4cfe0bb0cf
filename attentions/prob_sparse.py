"""ProbSparse attention: softmax for the queries that need it, the mean for the rest (Informer).

Zhou et al. 2021, arXiv 2012.07436, section 3.1 and algorithm 1, for n valid tokens and a factor f:

    U = u = min(n, f ceil(ln n))
    M_i = max_{j in S_i} q_i·k_j - (sum_{j in S_i} q_i·k_j) / n
    o_i = sum_j softmax_j(q_i·k_j / sqrt(D)) v_j    if M_i is one of the u largest
          mean_j v_j                                otherwise

S_i are U keys drawn with replacement, another sample for each query, the same for all rows of the
batch and all heads. M measures how far a query is from attending uniformly. Equation 4 has a mean
of all keys in the second term; the authors' code divides the sum over U samples by n, and so does
this. No gradient flows through the choice; of equal queries the first are taken.

With the option ``density``, which is not published, U = u = ceil(density n).

What differs from CAB's code, which follows theirs: the samples come from a hash of the layer, n,
the query's rank and the number of the draw, so that evaluation repeats itself and padding equals
removal; masked keys are in no sample, softmax or mean; one token has itself for output. Positions
are not read, but for the order of the valid tokens.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.exact import exact_softmax_attention
from cab import (
    Attention,
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

_GATHERED = 1 << 26
"""Numbers of sampled keys that are laid out at a time, where the products need that."""

_WORD = 0xFFFFFFFF


def sampled_ranks(layer: int, tokens: int, draws: int, device: torch.device) -> Tensor:
    """(n, U) integers below n, as if drawn uniformly and independently: the samples S_i."""
    stream = _mix(_mix(torch.tensor([layer + 1], device=device)) ^ tokens)
    queries = _mix(stream + torch.arange(tokens, device=device))
    numbers = 0x9E3779B9 * torch.arange(1, draws + 1, device=device)
    return _mix(queries[:, None] + numbers) * tokens >> 32


def _mix(x: Tensor) -> Tensor:
    """Spreads the lower 32 bits of each number over 32 bits, one to one.

    The factors are below 2^31, so that no product leaves the 63 bits of a positive integer.
    """
    x = x & _WORD
    x = (x ^ (x >> 16)) * 0x7FEB352D & _WORD
    x = (x ^ (x >> 15)) * 0x31848BAB & _WORD
    return x ^ (x >> 14)


def sampled_products(q: Tensor, k: Tensor, samples: Tensor) -> Tensor:
    """(H, n, U) of q (H, n, D), k (H, n, D) and indices (n, U): q_i·k_j for the sampled j."""
    (heads, tokens, dim), draws = q.shape, samples.shape[-1]
    if q.device.type == "cpu":
        # A product that is wanted at a few places only: the keys need not be copied there.
        starts = torch.arange(0, tokens * draws + 1, draws)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that compressed rows are a beta feature
            wanted = torch.sparse_csr_tensor(
                starts,
                samples.flatten(),
                q.new_zeros(tokens * draws),
                (tokens, tokens),
                check_invariants=False,  # a row may hold a place twice
            )
        products = [torch.sparse.sampled_addmm(wanted, q[h], k[h].mT) for h in range(heads)]
        return torch.stack([x.values().view(tokens, draws) for x in products])
    step = max(1, _GATHERED // (heads * draws * dim))
    return torch.cat(
        [
            (k[:, own] @ q[:, at : at + step, :, None])[..., 0]
            for at, own in enumerate(samples.split(step))
        ],
        dim=1,
    )


@register_attention(
    AttentionInfo(
        id="prob-sparse",
        family=Family.SPARSE,
        title="ProbSparse attention (Informer)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j for the f ln L queries of largest max_j "
        "q_i·k_j - sum_j q_i·k_j / L over f ln L sampled keys, else mean_j v_j",
        patterns={Pattern.NONCAUSAL_SELF: Grade.FAITHFUL},
        absent={
            Pattern.CAUSAL_SELF: "which queries get softmax is decided among all of them, so every "
            "output depends on later queries",
            Pattern.NONCAUSAL_CROSS: "Informer's cross attention is full softmax attention",
            Pattern.CAUSAL_CROSS: "which queries get softmax is decided among all of them, so "
            "every output depends on later queries",
        },
        time="L ln L D",
        memory="L ln L",
        paper="Zhou et al., Informer: Beyond Efficient Transformer for Long Sequence Time-Series "
        "Forecasting",
        year=2021,
        url="https://arxiv.org/abs/2012.07436",
        options=(
            Option("factor", 5, "f: samples and queries per ln L", positive=True),
            Option("density", 0.0, "share of queries that get softmax; 0: f ln L of them",
                   least=0, most=1),
        ),
        presets={"cab": {"factor": 5}},
    )
)  # fmt: skip
class ProbSparseAttention(Attention):
    """Softmax for the queries that look least uniform on a sample of keys, the mean elsewhere."""

    def __init__(self, spec: AttentionSpec, factor: int = 5, density: float = 0.0) -> None:
        super().__init__(spec)
        if density > 1:
            raise ValueError(f"density is a share of the queries: at most 1, not {density:g}")
        self.factor, self.share = factor, density

    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; a masked query gets the mean."""
        key_mask = None if context is None else context.key_mask
        tokens: Tensor | int = k.shape[-2]
        attended = None
        if key_mask is not None:
            tokens = key_mask.sum(-1).clamp(min=1)[:, None, None, None]
            # A row without keys would be NaN: let it see all of them, which are zeros.
            attended = (key_mask | ~key_mask.any(-1, keepdim=True))[:, None, None, :]
        mean = v.sum(-2, keepdim=True, dtype=torch.promote_types(v.dtype, torch.float32)) / tokens
        mean = mean.to(v.dtype)
        chosen, ours = self._choose(q, k, key_mask)
        some = q.gather(2, chosen.expand(-1, -1, -1, q.shape[-1]))
        rows = F.scaled_dot_product_attention(some, k, v, attn_mask=attended)
        if ours is not None:
            rows = torch.where(ours, rows, mean)
        out = mean.expand(-1, -1, q.shape[-2], -1)
        return out.scatter(2, chosen.expand(-1, -1, -1, v.shape[-1]), rows)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """Row for row of the batch, the valid tokens alone; softmax of all of their queries."""
        outs = []
        for row in range(q.shape[0]):
            valid = torch.arange(k.shape[-2], device=q.device)
            if context is not None and context.key_mask is not None:
                valid = valid[context.key_mask[row]]
            q_row, k_row, v_row = (x[row][:, valid] for x in (q, k, v))
            n, count = max(1, len(valid)), self._count(len(valid))
            samples = sampled_ranks(self.spec.layer_index, len(valid), count, q.device)
            products = (q_row[:, :, None] * k_row[:, samples]).sum(-1)
            measure = products.amax(-1) - products.sum(-1) / n
            first = measure.sort(descending=True, stable=True).indices[:, :count]
            mean = v_row.sum(-2, keepdim=True) / n
            softmax = exact_softmax_attention(q_row, k_row, v_row, None)
            place = first[..., None].expand(-1, -1, v.shape[-1])
            rows = mean.expand_as(v_row).scatter(1, place, softmax.gather(1, place))
            outs.append(mean.expand_as(v[row]).index_copy(1, valid, rows))
        return torch.stack(outs)

    @torch.no_grad()
    def density(self, q: Tensor, k: Tensor, context: AttentionContext | None = None) -> Tensor:
        """(B, H) share of the pairs that the output is made of (`cab.density`): all keys of the
        chosen queries, and for each other one the mean, as one column. Samples only choose.

        It hangs on the number of valid tokens alone.
        """
        valid = torch.full((q.shape[0],), k.shape[-2], dtype=torch.float64, device=q.device)
        if context is not None and context.key_mask is not None:
            valid = context.key_mask.sum(-1).double()
        counts = [self._count(n) if n else 0 for n in valid.long().tolist()]
        chosen = torch.tensor(counts, dtype=torch.float64, device=q.device)
        read = chosen * valid + (valid - chosen)
        return (read / valid.square())[:, None].expand(-1, q.shape[1])

    def flops(self, shape: AttentionShape) -> float:
        """Sampled products, the chosen rows of softmax attention and the mean."""
        rows, width = shape.batch * shape.heads, shape.head_dim + shape.value_dim
        count = self._count(shape.length_k)
        sampled = 2 * shape.length_q * count * shape.head_dim
        return rows * (
            sampled + 2 * count * shape.length_k * width + shape.length_k * shape.value_dim
        )

    def _count(self, tokens: int) -> int:
        """U and u. At least 1: a single token has itself for output either way."""
        tokens = max(1, tokens)
        if self.share:
            return min(tokens, math.ceil(self.share * tokens - 1e-9))
        return min(tokens, max(1, self.factor * math.ceil(math.log(tokens))))

    @torch.no_grad()
    def _choose(
        self, q: Tensor, k: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Positions (B, H, u, 1) of the queries of largest measure, and which of them count.

        Rows of fewer valid tokens choose fewer queries; None: all count.
        """
        dtype = torch.promote_types(q.dtype, torch.float32)
        q, k, length = q.to(dtype), k.to(dtype), k.shape[-2]
        counts = []
        measures = []
        samples: Tensor | None = None
        for row in range(q.shape[0]):
            q_row, k_row = q[row], k[row]
            if key_mask is not None:
                valid = key_mask[row].nonzero()[:, 0]
                q_row, k_row = q_row[:, valid], k_row[:, valid]
            n = q_row.shape[1]
            counts.append(self._count(n))
            if samples is None or len(samples) != n:
                samples = sampled_ranks(self.spec.layer_index, n, counts[-1], q.device)
            products = sampled_products(q_row, k_row, samples)
            measure = products.amax(-1) - products.sum(-1) / max(1, n)
            if key_mask is not None:
                least = measure.new_full((len(measure), length), -math.inf)
                measure = least.index_copy_(1, valid, measure)
            measures.append(measure)
        order = torch.stack(measures).sort(descending=True, stable=True).indices
        chosen = order[..., : self._count(length), None]
        if key_mask is None:
            return chosen, None
        ours = torch.arange(chosen.shape[2], device=q.device)[:, None]
        return chosen, ours < torch.tensor(counts, device=q.device)[:, None, None, None]
