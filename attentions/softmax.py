"""Softmax attention through torch's fused scaled-dot-product attention.

    o_i = sum_j p_ij v_j,   p_ij = exp(q_i·k_j / sqrt(D)) / sum_l exp(q_i·k_l / sqrt(D))

over the keys j that row i sees (Vaswani et al. 2017, equation 1). It is the baseline of every
comparison: indices are log-ratios to it, and slots of other patterns hold it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from attentions.shared.cache import KeyValueCache
from attentions.shared.exact import exact_softmax_attention
from attentions.shared.masks import visible
from cab import (
    AttentionContext,
    AttentionInfo,
    AttentionShape,
    Family,
    Grade,
    Kind,
    Pattern,
    register_attention,
)


def softmax_flops(shape: AttentionShape, causal: bool) -> float:
    """Multiply-adds of scores and weighted sum; half of them where a causal mask removes half."""
    pairs = shape.batch * shape.heads * shape.length_q * shape.length_k
    return 2 * pairs * (shape.head_dim + shape.value_dim) * (0.5 if causal else 1.0)


@register_attention(
    AttentionInfo(
        id="softmax",
        family=Family.SOFTMAX,
        title="Softmax attention (fused)",
        formula="o_i = softmax_j(q_i·k_j / sqrt(D)) v_j",
        patterns={
            Pattern.NONCAUSAL_SELF: Grade.FAITHFUL,
            Pattern.CAUSAL_SELF: Grade.FAITHFUL,
            Pattern.NONCAUSAL_CROSS: Grade.FAITHFUL,
            Pattern.CAUSAL_CROSS: Grade.FAITHFUL,
        },
        time="L^2 D",
        memory="L",
        paper="Vaswani et al., Attention Is All You Need",
        year=2017,
        url="https://arxiv.org/abs/1706.03762",
        kind=Kind.CONTROL,
    )
)
class SoftmaxAttention(KeyValueCache):
    """Fused softmax attention (torch SDPA); the baseline."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """See `cab.Attention.forward`."""
        return self.fused(q, k, v, context, q.shape[-1] ** -0.5)

    def fused(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None, scale: float
    ) -> Tensor:
        """Forward with a factor of q·k, by the kernels that torch may use where it is called."""
        causal = self.pattern is Pattern.CAUSAL_SELF
        unmasked = context is None or context.key_mask is None
        # SDPA's own causal flag is top-left aligned, so it serves only where Lq == Lk.
        if causal and unmasked and q.shape[-2] == k.shape[-2]:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        if mask is None:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)
        sees = mask.any(-1, keepdim=True)
        # A row without keys would be NaN in some backends: let it see all, then zero it.
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~sees, scale=scale)
        return out.masked_fill(~sees, 0.0)

    def reference(
        self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext | None = None
    ) -> Tensor:
        """The matrix of scores under the mask, and its softmax."""
        mask = visible(self.pattern, q.shape[-2], k.shape[-2], context, q.device)
        return exact_softmax_attention(q, k, v, mask)

    def flops(self, shape: AttentionShape) -> float:
        """2 B H Lq Lk (D + Dv), half of it in causal self attention."""
        return softmax_flops(shape, self.pattern is Pattern.CAUSAL_SELF)
