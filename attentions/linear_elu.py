"""Linear attention with the feature map elu + 1 (Katharopoulos et al. 2020, arXiv 2006.16236).

    phi(x) = elu(x) + 1,   o_i = phi(q_i)·S_i / phi(q_i)·z_i
    S_i = sum_j phi(k_j) v_j^T,   z_i = sum_j phi(k_j)

over the keys j that row i sees (equations 5 to 7). Noncausally S and z are one matrix product;
causally they are prefix sums, taken chunk by chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attentions.masks import visible
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    DecodeState,
    Grade,
    Pattern,
    register_attention,
)

_CHUNK = 64


def elu_features(x: Tensor) -> Tensor:
    """elu(x) + 1, positive; in float32 at least."""
    return F.elu(x.to(torch.promote_types(x.dtype, torch.float32))) + 1.0


def safe_divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Numerator / denominator, and zero where the denominator is zero (a row without keys)."""
    empty = denominator == 0
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)


@register_attention(
    AttentionInfo(
        id="linear-elu",
        title="Linear attention (elu + 1)",
        formula="o_i = phi(q_i) sum_j phi(k_j) v_j^T / phi(q_i)·sum_j phi(k_j), phi = elu + 1",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.EXTENSION,
            Pattern.CAUSAL_CROSS: Grade.EXTENSION,
        },
        time="L D^2",
        memory="D^2",
        paper="Katharopoulos et al., Transformers are RNNs: Fast Autoregressive Transformers "
        "with Linear Attention",
        year=2020,
        url="https://arxiv.org/abs/2006.16236",
    )
)
class LinearElu(Attention):
    """Linear attention with elu + 1 features."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`; the sums are kept in float32 at least."""
        fq, fk = elu_features(q), self._key_features(k, context)
        # One more column of ones makes the normaliser part of the same sums.
        wide = F.pad(v.to(fq.dtype), (0, 1), value=1.0)
        if self.pattern is Pattern.CAUSAL_SELF:
            sums = _causal_sums(fq, fk, wide)
        else:
            sums = fq @ (fk.transpose(-1, -2) @ wide)
        return safe_divide(sums[..., :-1], sums[..., -1:]).to(v.dtype)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of weights, written out."""
        weights = elu_features(q) @ elu_features(k).transpose(-1, -2)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is not None:
            weights = weights * mask
        return safe_divide(weights @ v, weights.sum(-1, keepdim=True))

    def prefill(self, k: Tensor, v: Tensor, context: AttentionContext | None = None) -> DecodeState:
        """The sums S and z over the prompt or source, as one (B, H, D, Dv + 1) tensor."""
        fk = self._key_features(k, context)
        sums = fk.transpose(-1, -2) @ F.pad(v.to(fk.dtype), (0, 1), value=1.0)
        return DecodeState(k.shape[-2], {"sums": sums})

    def step(
        self,
        q_t: Tensor,
        k_t: Tensor | None,
        v_t: Tensor | None,
        state: DecodeState,
        context: AttentionContext | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Add the token's key and value to the sums, if it has any, and read them."""
        if k_t is not None and v_t is not None:
            fk = elu_features(k_t)
            wide = F.pad(v_t.to(fk.dtype), (0, 1), value=1.0)
            state.tensors["sums"] = state.tensors["sums"] + fk.transpose(-1, -2) @ wide
            state.length += k_t.shape[-2]
        sums = elu_features(q_t) @ state.tensors["sums"]
        return safe_divide(sums[..., :-1], sums[..., -1:]).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H D (D + 1) numbers, whatever the length (values as wide as keys)."""
        return self.spec.heads * self.spec.head_dim * (self.spec.head_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """4 B H L D (Dv + 1), and causally the products within a chunk."""
        rows = shape.batch * shape.heads
        sums = 2 * rows * (shape.length_q + shape.length_k) * shape.head_dim * (shape.value_dim + 1)
        if self.pattern is not Pattern.CAUSAL_SELF:
            return sums
        within = 2 * rows * shape.length_q * _CHUNK * (shape.head_dim + shape.value_dim + 1)
        return sums + within

    @staticmethod
    def _key_features(k: Tensor, context: AttentionContext | None) -> Tensor:
        fk = elu_features(k)
        if context is None or context.key_mask is None:
            return fk
        return fk * context.key_mask[:, None, :, None]


def _causal_sums(fq: Tensor, fk: Tensor, wide: Tensor) -> Tensor:
    """Sum over visible j of (phi(q_i)·phi(k_j)) wide_j, chunked: (B, H, Lq, Dv + 1).

    Keys before the first query (Lk - Lq of them) enter the first state.
    """
    lag = fk.shape[-2] - fq.shape[-2]
    state = fk[..., :lag, :].transpose(-1, -2) @ wide[..., :lag, :]
    fk, wide = fk[..., lag:, :], wide[..., lag:, :]
    length = fq.shape[-2]
    padding = -length % _CHUNK
    fq, fk, wide = (F.pad(x, (0, 0, 0, padding)) for x in (fq, fk, wide))
    fq, fk, wide = (x.unflatten(-2, (-1, _CHUNK)) for x in (fq, fk, wide))
    moments = fk.transpose(-1, -2) @ wide
    before = moments.cumsum(-3) - moments + state[..., None, :, :]
    within = (fq @ fk.transpose(-1, -2)).tril() @ wide
    return (within + fq @ before).flatten(-3, -2)[..., :length, :]
