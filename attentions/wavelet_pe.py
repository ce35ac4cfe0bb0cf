"""Wavelet-based relative positions (Oka et al. 2025, arXiv 2502.02004).

    o_i = softmax_j((q_i·k_j + q_i·p(i - j)) / sqrt(D)) v_j
    p(t)_(a,b) = psi((t - b) / a),   psi(u) = (1 - u^2) exp(-u^2 / 2)

The D numbers of p(t) are Ricker wavelets of the distance t: s scales a = 2^first, 2^(first + 1),
.., each with D / s shifts b = 0, 1, ..; all shifts of a scale stand together. They are fixed, and
shared by heads and layers. s is 8, or the largest smaller power of two that divides D; with
``first`` = 2 they are those of the paper's model for long contexts. Amplitudes are all one, as in
the paper.

i and j are positions: those of the context, or else places in the sequence. The paper uses it in
the place of other position encodings; a backbone's own are not taken away here. No code of its
authors was found.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.shared.autocast import without_autocast
from attentions.shared.cache import KeyValueCache
from attentions.shared.features import work_dtype
from attentions.shared.masks import visible
from attentions.shared.positions import at_positions, prompt_at_positions
from attentions.softmax import softmax_flops
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
        id="wavelet-pe",
        family=Family.POSITIONAL,
        title="Wavelet-based relative positions",
        formula="o_i = softmax_j((q_i·k_j + q_i·p(i - j)) / sqrt(D)) v_j, "
        "p Ricker wavelets of the distance",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.EXTENSION,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
        },
        absent={
            Pattern.NONCAUSAL_CROSS: "queries and keys of two sequences are at no distance",
            Pattern.CAUSAL_CROSS: "queries and keys of two sequences are at no distance",
        },
        time="L^2 D",
        memory="L^2",
        paper="Oka et al., Wavelet-based Positional Representation for Long Context",
        year=2025,
        url="https://arxiv.org/abs/2502.02004",
        options=(
            Option(
                "scales", 8, "s: a power of two; fewer where it does not divide D", positive=True
            ),
            Option("first", 0, "exponent of the smallest scale", least=0, most=30),
        ),
        presets={"long-context": {"scales": 8, "first": 2}},
    )
)
class WaveletPositions(KeyValueCache):
    """Softmax attention with wavelets of the distance in its scores."""

    def __init__(self, spec: AttentionSpec, scales: int = 8, first: int = 0) -> None:
        super().__init__(spec)
        if scales & (scales - 1):
            raise ValueError(f"scales must be a power of two, not {scales}")
        while spec.head_dim % scales:
            scales //= 2
        self.scales, self.first = scales, first

    @at_positions
    @without_autocast
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; scores and weights are in float32 at least."""
        dtype = work_dtype(v)
        q, length_q, length_k = q.to(dtype), q.shape[-2], k.shape[-2]
        # From the first key's distance to the last query down to the last key's to the first.
        nearest = 0 if self.pattern is Pattern.CAUSAL_SELF else 1 - length_q
        distances = torch.arange(length_k - 1, nearest - 1, -1, device=q.device)
        of_distance = q @ self.wavelets(distances, dtype).mT
        scores = q @ k.to(dtype).mT + _by_key(of_distance, length_k)
        scores = scores * q.shape[-1] ** -0.5
        mask = visible(self.pattern, length_q, length_k, context, q.device)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0.0)
        return (weights @ v.to(dtype)).to(v.dtype)

    @at_positions
    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The wavelets of every pair, written out."""
        length_q, length_k = q.shape[-2], k.shape[-2]
        places = torch.arange(length_k, device=q.device)
        distances = places[length_k - length_q :, None] - places
        pairs = self.wavelets(distances, q.dtype)
        scores = torch.einsum("bhid,bhjd->bhij", q, k) + torch.einsum("bhid,ijd->bhij", q, pairs)
        mask = visible(self.pattern, length_q, length_k, context, q.device)
        seen = torch.ones_like(scores, dtype=torch.bool)
        seen = seen if mask is None else seen & mask
        scores = (scores / q.shape[-1] ** 0.5).masked_fill(~seen, torch.finfo(q.dtype).min)
        return scores.softmax(-1).masked_fill(~seen, 0.0) @ v

    @prompt_at_positions
    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """Keys, values and key mask of the prompt, at their positions."""
        return super().prefill(k, v, context)

    def state_size(self, length: int) -> int:
        """H L (D + Dv) numbers."""
        return self.spec.heads * length * (self.spec.head_dim + self.spec.value_dim)

    def flops(self, shape: AttentionShape) -> float:
        """Those of softmax attention with all scores, and a product with every distance."""
        causal = self.pattern is Pattern.CAUSAL_SELF
        distances = shape.length_k if causal else shape.length_q + shape.length_k - 1
        rows = shape.batch * shape.heads * shape.length_q
        return softmax_flops(shape, causal=False) + 2 * rows * distances * shape.head_dim

    def wavelets(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """(..., D) of integer distances t = i - j."""
        shifts = self.spec.head_dim // self.scales
        number = torch.arange(self.spec.head_dim, device=distances.device)
        scale = 2.0 ** (self.first + number // shifts).to(dtype)
        u = (distances[..., None] - number % shifts).to(dtype) / scale
        return (1 - u.square()) * (-u.square() / 2).exp()


def _by_key(x: Tensor, length_k: int) -> Tensor:
    """Scores of keys, (B, H, Lq, Lk), from scores of distances that fall from column to column.

    The distance of the last query to the first key is in column 0, so key j of the last query is in
    column j, and that of each query before it one further right: rows that are one shorter than
    they are, one after the other, line the keys up. Distances that are left out count as zeros.
    """
    length_q = x.shape[-2]
    x = F.pad(x, (0, length_k + length_q - 1 - x.shape[-1]))
    if length_q < 2:
        return x
    width = x.shape[-1] - 1
    flat = x.flatten(-2)[..., length_q - 1 : length_q - 1 + length_q * width]
    return flat.unflatten(-1, (length_q, width))[..., :length_k]
