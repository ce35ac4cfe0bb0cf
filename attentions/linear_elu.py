"""Linear attention with the feature map elu + 1 (Katharopoulos et al. 2020, arXiv 2006.16236).

    phi(x) = elu(x) + 1,   o_i = phi(q_i)·S_i / phi(q_i)·z_i
    S_i = sum_j phi(k_j) v_j^T,   z_i = sum_j phi(k_j)

over the keys j that row i sees (equations 5 to 7). Noncausally S and z are one matrix product;
causally they are prefix sums, taken chunk by chunk.
"""

from __future__ import annotations

from torch import Tensor

from attentions.shared.features import elu_features
from attentions.shared.masks import visible
from attentions.shared.prefix_sums import (
    linear_attention,
    linear_attention_flops,
    read_sums,
    safe_divide,
    sums_of,
)
from cab import (
    Attention,
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    DecodeState,
    Family,
    Grade,
    Pattern,
    register_attention,
)


@register_attention(
    AttentionInfo(
        id="linear-elu",
        family=Family.LINEAR,
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
        fk, values = self._keys_and_values(k, v, context)
        causal = self.pattern is Pattern.CAUSAL_SELF
        return linear_attention(elu_features(q), fk, values, causal=causal)[0].to(v.dtype)

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
        return DecodeState(k.shape[-2], {"sums": sums_of(*self._keys_and_values(k, v, context))})

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
            state.tensors["sums"] = state.tensors["sums"] + sums_of(elu_features(k_t), v_t)
            state.length += k_t.shape[-2]
        return read_sums(elu_features(q_t), state.tensors["sums"]).to(q_t.dtype), state

    def state_size(self, length: int) -> int:
        """H D (Dv + 1) numbers, whatever the length."""
        return self.spec.heads * self.spec.head_dim * (self.spec.value_dim + 1)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H (Lq + Lk) D (Dv + 1), and causally the products within a chunk."""
        causal = self.pattern is Pattern.CAUSAL_SELF
        return linear_attention_flops(shape, shape.head_dim, causal=causal)

    @staticmethod
    def _keys_and_values(
        k: Tensor, v: Tensor, context: AttentionContext | None
    ) -> tuple[Tensor, Tensor]:
        """Features of the keys, zero where masked, and the values in their dtype."""
        fk = elu_features(k)
        if context is not None and context.key_mask is not None:
            fk = fk.masked_fill(~context.key_mask[:, None, :, None], 0.0)
        return fk, v.to(fk.dtype)
