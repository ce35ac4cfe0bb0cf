"""Linformer: a fixed number of learned sums of the sequence in place of keys and values (Wang et
al. 2020, arXiv 2006.04768).

    O = softmax(Q (E K)ᵀ / sqrt(D)) F V

E and F are learned, r rows of n columns, for n tokens; here the same for all heads, and, by the
option ``shared``, one matrix for keys and values: two of the paper's ways to share. The softmax is
over the r sums, which no query is kept from, so that nothing here is a causal attention.

A published matrix has one column for each token of one length n. Here (adapted) it has ``places``
columns, learned, and the columns of a sequence of L tokens are read off between them:

    E_mj = (n / L) sum_t E~_mt max(0, 1 - |t - (j + 1/2) n / L + 1/2|),   0 <= j < L

where what lies before the first or after the last column is that column. At L = n this is E~, the
published layer. Elsewhere a row of E stands for one weighting over the length of a sequence,
stretched to fit, whose sum keeps its size: any length goes, and none has parameters of its own.

L is the place of the last valid token, plus one; tokens stand at the positions of the context. A
masked token is zero in the sums, and what it would have added is missing: as in the published
layer, nothing makes up for it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.masks import valid_lengths
from attentions.shared.positions import at_positions
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


@register_attention(
    AttentionInfo(
        id="linformer",
        family=Family.LOW_RANK,
        title="Linformer",
        formula="O = softmax(Q (E K)ᵀ / sqrt(D)) F V, E and F (r, L) learned and stretched to L",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.ADAPTED,
            Pattern.NONCAUSAL_CROSS: Grade.ADAPTED,
        },
        absent={
            Pattern.CAUSAL_SELF: "a row that stands for keys is a sum over the whole sequence, so "
            "every output depends on later tokens",
            Pattern.CAUSAL_CROSS: "not claimed: its authors have no decoder, and a fixed source "
            "gives the rows of noncausal cross attention",
        },
        time="L r D",
        memory="L r",
        paper="Wang et al., Linformer: Self-Attention with Linear Complexity",
        year=2020,
        url="https://arxiv.org/abs/2006.04768",
        options=(
            Option("rows", 16, "r: sums that stand for the keys", positive=True),
            Option("places", 64, "n: learned columns, stretched to any length", positive=True),
            Option("shared", True, "one matrix for keys and values"),
        ),
    )
)
class Linformer(Attention):
    """Softmax attention to learned sums of keys and values."""

    def __init__(
        self, spec: AttentionSpec, rows: int = 16, places: int = 64, shared: bool = True
    ) -> None:
        super().__init__(spec)
        bound = places**-0.5  # as linear layers over the sequence begin
        matrices = torch.empty(1 if shared else 2, rows, places).uniform_(-bound, bound)
        self.matrices = nn.Parameter(matrices)

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; computed in float32 at least."""
        dtype = v.dtype
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = (x.to(wide) for x in (q, k, v))
        lengths, outside = _lengths(k, context)
        stretched = self._stretched(lengths, k.shape[-2], wide)
        if outside is not None:
            stretched = stretched.masked_fill(outside, 0.0)
        keys, values = stretched[0][:, None] @ k, stretched[-1][:, None] @ v
        return F.scaled_dot_product_attention(q, keys, values).to(dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """One sequence after the other, columns as sums over all that are learned."""
        matrices = self.matrices.to(q.dtype)
        places = torch.arange(matrices.shape[-1], dtype=q.dtype, device=q.device)
        lengths, _ = _lengths(k, context)
        outputs = []
        for row, length in enumerate(lengths.expand(len(q)).tolist()):
            ratio = matrices.shape[-1] / max(1, length)
            at = (torch.arange(length, dtype=q.dtype, device=q.device) + 0.5) * ratio - 0.5
            at = at.clamp(0, matrices.shape[-1] - 1)
            near = (1 - (places[:, None] - at).abs()).clamp(min=0)
            columns = ratio * matrices @ near
            keys, values = (
                m @ x[row, :, :length]
                for m, x in zip((columns[0], columns[-1]), (k, v), strict=True)
            )
            scores = q[row] @ keys.mT * q.shape[-1] ** -0.5
            outputs.append(scores.softmax(-1).to(v.dtype) @ values)
        return torch.stack(outputs)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (Lq + Lk) r (D + Dv), and 3 r Lk for each matrix that is stretched."""
        count, rows, _ = self.matrices.shape
        tokens = shape.batch * shape.heads * (shape.length_q + shape.length_k)
        stretching = 3 * count * rows * shape.length_k
        return 2 * tokens * rows * (shape.head_dim + shape.value_dim) + stretching

    def _stretched(self, lengths: Tensor, count: int, dtype: torch.dtype) -> Tensor:
        """(1 or 2, B or 1, r, L) columns for sequences of as many tokens as ``lengths`` (B,) say;
        what they are behind the last is finite.
        """
        matrices = self.matrices.to(dtype)
        last = matrices.shape[-1] - 1
        # In float64: places are large, and what counts is how far they are from a column.
        ratio = ((last + 1) / lengths.clamp(min=1).double())[:, None]
        at = (torch.arange(count, device=lengths.device) + 0.5) * ratio - 0.5
        at = at.clamp(0, last)
        low = at.long()
        share, ratio = (at - low).to(dtype), ratio.to(dtype)
        below, above = (matrices[..., x] for x in (low, (low + 1).clamp(max=last)))
        return (ratio * torch.lerp(below, above, share.expand_as(below))).transpose(1, 2)


def _lengths(k: Tensor, context: AttentionContext | None) -> tuple[Tensor, Tensor | None]:
    """(B or 1,) tokens of each sequence, and (B, 1, L) bool, True where a key is none."""
    if context is None or context.key_mask is None:
        return torch.full((1,), k.shape[-2], device=k.device), None
    return valid_lengths(context.key_mask), ~context.key_mask[:, None]
